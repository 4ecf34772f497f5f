"""Runner: runs plans on the device, in the order they come (R1). Knows slots and blocks; never sees a request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ridgeline.attention.base import AnyAttention
from ridgeline.core.types import NO_BLOCKS, NO_TOKENS, Ints, Join, Output, Plan, Sampling
from ridgeline.device.base import Device, Download
from ridgeline.runner.forward import Eager, Forward, Model
from ridgeline.runner.inputs import Packing
from ridgeline.runner.sampler import Choose, Sampler
from ridgeline.runner.scores import Scoring, Words, collected
from ridgeline.runner.slots import Sizes, SlotTables

WARM_UP_TOKENS = 64
WARM_UP_DECODES = 3


@dataclass(frozen=True, slots=True)
class Launched:
    """A plan in flight. makers: for each iteration the rows that may make a token in it; computed: positions of each
    of them in the first one. made: [3, sum of makers] token, appended, is a stop id. prompt_scores, scores:
    log-probabilities, where somebody asked for them."""

    serial: int
    rows: int
    makers: list[Ints]
    computed: Ints
    made: Download
    prompt_scores: Words | None
    scores: Words | None
    positions: int
    padding: int


class Runner:
    """`collect(launch(plan))` is one step; results are collected in the order of launches.

    kv_dtype: the cache's format, None: the device's. forward: what steps go through. eager: the same operations one by
    one; whoever wants to see them puts it in forward's place for a while (runner/regions.py).
    """

    def __init__(
        self,
        model: Model,
        attention: AnyAttention,
        packing: Packing,
        device: Device,
        sizes: Sizes,
        kv_dtype: torch.dtype | None = None,
    ) -> None:
        assert attention.allows(sizes.block_size), sizes.block_size
        assert sizes.max_len <= model.spec.max_positions, sizes.max_len
        self.device, self.sizes = device, sizes
        stored = device.dtype if kv_dtype is None else kv_dtype
        self.store = attention.store(model.spec, sizes.num_blocks, sizes.block_size, stored, device)
        self._tables = SlotTables(sizes, device)
        self._packing = packing
        self.eager = Eager(model, attention)
        self.forward: Forward = self.eager
        self.sampler: Choose = Sampler(self._tables)

    @torch.inference_mode()
    def launch(self, plan: Plan) -> Launched:
        """All iterations of a plan, without waiting for the device between them.

        A row that meets a stop token goes on to the end of the horizon: what it computes lies in its own blocks beyond
        its end, and nobody reads it.
        """
        self._tables.apply(plan)
        scoring = Scoring(plan, self._tables, self.forward.logits)
        makers: list[Ints] = []
        made: list[Tensor] = []
        positions = padding = 0
        for turn in range(plan.horizon):
            part = plan if turn == 0 else _turn(plan, turn)
            if not len(part.rows):
                break
            batch = self._packing.pack(part, self._tables)
            logits, hidden = self.forward(batch)
            if turn == 0:
                scoring.prompt(batch, hidden)
            makers.append(np.flatnonzero(plan.promise > turn))
            slots = plan.rows[makers[-1]]
            chosen = self.sampler(logits, slots)
            scoring.made(makers[-1], logits, chosen)
            (at,) = self.device.upload([slots])
            appended, hit = self._tables.settle(at, chosen)
            made.append(torch.stack((chosen, appended, hit)))
            positions, padding = positions + batch.tokens.shape[0], padding + batch.padding
        sent = self.device.download(torch.cat(made, -1))
        computed = plan.counts[makers[0]]
        return Launched(plan.serial, len(plan.rows), makers, computed, sent, *scoring.sent(), positions, padding)

    def collect(self, launched: Launched) -> Output:
        made = launched.made.result()
        counts = np.zeros(launched.rows, np.int64)
        tokens = np.zeros((launched.rows, len(launched.makers)), np.int32)
        finished = np.zeros(launched.rows, np.bool_)
        first = wasted = 0
        for turn, makers in enumerate(launched.makers):
            chosen, appended, hit = made[:, first : first + len(makers)]
            first += len(makers)
            tokens[makers, turn] = chosen
            counts[makers] += appended
            finished[makers] |= hit > 0
            over = appended == 0  # stopped in an earlier iteration, or launch that was in flight
            wasted += int(launched.computed[over].sum()) if turn == 0 else int(over.sum())
        padding = launched.padding + wasted
        scores = collected(launched.prompt_scores, launched.scores, counts)
        return Output(launched.serial, counts, tokens, finished, launched.positions, padding, scores)

    def warm_up(self) -> None:
        """Run a prompt and a few tokens in slot 0, so that no request pays for first calls. Before the first plan only:
        it writes to blocks as if all were free."""
        sizes = self.sizes
        room = min(sizes.max_len, sizes.num_blocks * sizes.block_size)
        count = max(1, min(WARM_UP_TOKENS, room - WARM_UP_DECODES))
        steps = min(1 + WARM_UP_DECODES, room - count + 1)
        limit = min(count + steps, sizes.max_len)
        blocks = tuple(range(-(-limit // sizes.block_size)))[: sizes.num_blocks]
        sampling = Sampling(temperature=1.0, top_p=0.9, frequency_penalty=0.1, logprobs=1)
        joins: tuple[Join, ...] = (Join(0, np.zeros(count, np.int32), NO_TOKENS, blocks, limit, sampling),)
        start = 0
        for _ in range(limit - count):
            self.collect(self.launch(_plan(start, count, joins, leaves=())))
            start, count, joins = start + count, 1, ()
        self._tables.apply(_plan(0, 1, (), leaves=(0,)))
        self.device.synchronize()


def _turn(plan: Plan, turn: int) -> Plan:
    """A later iteration of a plan as a plan of its own: the rows that may still make a token, one token each."""
    going = plan.promise > turn
    starts = (plan.starts + plan.counts + turn - 1)[going]
    ones = np.ones_like(starts)
    return Plan(plan.serial, plan.rows[going], starts, ones, ones, (), (), NO_BLOCKS, seats=plan.seats)


def _plan(start: int, count: int, joins: tuple[Join, ...], leaves: tuple[int, ...]) -> Plan:
    rows, starts, counts, promise = (np.array([value], np.int64) for value in (0, start, count, 1))
    return Plan(0, rows, starts, counts, promise, joins, leaves, NO_BLOCKS, seats=1)
