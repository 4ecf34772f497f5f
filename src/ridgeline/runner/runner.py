"""Runner: runs plans on the device, in the order they come (R1). Knows slots and blocks; never sees a request."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ridgeline.attention.base import AnyAttention
from ridgeline.core.types import NO_BLOCKS, NO_TOKENS, Join, Output, Plan, Sampling
from ridgeline.device.base import Device
from ridgeline.runner.forward import Eager, Forward, Model
from ridgeline.runner.graphs import NoGraphs, Replays
from ridgeline.runner.inputs import Packing
from ridgeline.runner.launched import Launched, Packed
from ridgeline.runner.sampler import Choose, Sampler
from ridgeline.runner.scores import Scoring
from ridgeline.runner.slots import Sizes, SlotTables
from ridgeline.runner.turns import in_turns

WARM_UP_TOKENS, WARM_UP_FEW = 64, 5
"""Of prompts. Kernels of few rows are others, and those for a number that 16 divides are compiled apart."""
FEW_ROWS = (1, 2, 4, 8)
"""Each has kernels of its own, on a GPU."""
WARM_UP_DECODES = 3


class Runner:
    """`collect(launch(plan))` is one step; results are collected in the order of launches.

    kv_dtype: the cache's format, None: the device's. forward: what steps go through that are packed here. eager: the
    same operations one by one; whoever wants to see them puts it in forward's place for a while (runner/regions.py).
    graphs: what runs the other steps.
    """

    def __init__(
        self,
        model: Model,
        attention: AnyAttention,
        packing: Packing,
        device: Device,
        sizes: Sizes,
        kv_dtype: torch.dtype | None = None,
        graphs: Callable[[Model, AnyAttention, SlotTables, Packing], Replays] = NoGraphs,
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
        self.graphs: Replays = graphs(model, attention, self._tables, packing)

    @torch.inference_mode()
    def launch(self, plan: Plan) -> Launched:
        """All iterations of a plan, without waiting for the device between them."""
        self._tables.apply(plan)
        replayed = self.graphs.launch(plan) if self.forward is self.eager else None
        return self._packed(plan) if replayed is None else replayed

    def _packed(self, plan: Plan) -> Packed:
        scoring = Scoring(plan, self._tables, self.forward.logits)

        def logits_of(part: Plan, first: bool) -> tuple[Tensor, int, int]:
            batch = self._packing.pack(part, self._tables)
            logits, hidden = self.forward(batch)
            if first:
                scoring.prompt(batch, hidden)
            return logits, batch.tokens.shape[0], batch.padding

        return in_turns(plan, self._tables, self.sampler, scoring, logits_of)

    def collect(self, launched: Launched) -> Output:
        return launched.output()

    @torch.inference_mode()
    def between(self) -> None:
        """Between two steps: make ready what the last launches lacked."""
        self.graphs.between()

    @torch.inference_mode()
    def idle(self) -> bool:
        """Nothing is to do: make ready what launches may need, a part of it. False: all is."""
        return self.graphs.idle()

    def warm_up(self) -> None:
        """Run prompts and a few tokens in slot 0, so that no request pays for first calls. Before the first plan only:
        it writes to blocks as if all were free."""
        with self.device.compiling_beside(self._products()):
            self.rehearse()

    def rehearse(self) -> None:
        """The same where nothing is compiled."""
        self._try(WARM_UP_TOKENS, WARM_UP_DECODES)
        self._try(WARM_UP_FEW, 0)
        self._rehearse_graphs()
        self.device.synchronize()

    def _products(self) -> list[Callable[[], object]]:
        """The quickest to compile first, because nothing else is compiled meanwhile; then the slowest."""
        model, device = self.eager.model, self.device
        rows = [rows for rows in FEW_ROWS if rows <= self.sizes.step_tokens]
        x = torch.zeros(max(rows), model.spec.d_model, dtype=device.compute, device=device.torch_device)
        calls = [call for count in rows for call in model.products(x[:count])]
        return [*calls[:1], *reversed(calls[1:])]

    def _try(self, tokens: int, decodes: int) -> None:
        """A prompt of so many tokens, and so many steps after it."""
        sizes = self.sizes
        room = min(sizes.max_len, sizes.num_blocks * sizes.block_size)
        count = max(1, min(tokens, room - decodes))
        steps = min(1 + decodes, room - count + 1)
        limit = min(count + steps, sizes.max_len)
        blocks = tuple(range(-(-limit // sizes.block_size)))[: sizes.num_blocks]
        sampling = Sampling(temperature=1.0, top_p=0.9, frequency_penalty=0.1, logprobs=1)
        joins: tuple[Join, ...] = (Join(0, np.zeros(count, np.int32), NO_TOKENS, blocks, limit, sampling),)
        start = 0
        for _ in range(limit - count):
            self.collect(self.launch(lone_plan(start, count, joins, leaves=())))
            start, count, joins = start + count, 1, ()
        self.vacate(0)

    @torch.inference_mode()
    def _rehearse_graphs(self) -> None:
        self.graphs.rehearse()

    @torch.inference_mode()
    def vacate(self, slot: int) -> None:
        """Whoever tried something out in this slot leaves it."""
        self._tables.apply(lone_plan(0, 1, (), leaves=(slot,)))


def lone_plan(start: int, count: int, joins: tuple[Join, ...], leaves: tuple[int, ...]) -> Plan:
    """Slot 0 alone computes so many tokens and makes one."""
    rows, starts, counts, promise = (np.array([value], np.int64) for value in (0, start, count, 1))
    return Plan(0, rows, starts, counts, promise, joins, leaves, NO_BLOCKS, seats=1)
