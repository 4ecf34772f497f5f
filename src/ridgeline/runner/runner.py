"""Runner: runs plans on the device, in the order they come (R1). Knows slots and blocks; never sees a request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ridgeline.attention.base import AnyAttention
from ridgeline.core.types import NO_BLOCKS, NO_TOKENS, Ints, Join, Output, Plan, Sampling
from ridgeline.device.base import Device
from ridgeline.runner.forward import Eager, Model
from ridgeline.runner.inputs import Packing
from ridgeline.runner.sampler import Sampler
from ridgeline.runner.slots import Sizes, SlotTables

WARM_UP_TOKENS = 64
WARM_UP_DECODES = 3


@dataclass(frozen=True, slots=True)
class Launched:
    """A plan in flight. makers: its rows that make a token. made: [3, makers] token, appended, is a stop id."""

    serial: int
    rows: int
    makers: Ints
    made: Tensor
    positions: int
    padding: int


class Runner:
    """`collect(launch(plan))` is one step; results are collected in the order of launches."""

    def __init__(self, model: Model, attention: AnyAttention, packing: Packing, device: Device, sizes: Sizes) -> None:
        assert attention.allows(sizes.block_size), sizes.block_size
        assert sizes.max_len <= model.spec.max_positions, sizes.max_len
        self.device, self.sizes = device, sizes
        self.store = attention.store(model.spec, sizes.num_blocks, sizes.block_size, device.dtype, device.torch_device)
        self._tables = SlotTables(sizes, device)
        self._packing = packing
        self._forward = Eager(model, attention)
        self._sampler = Sampler(self._tables)

    @torch.inference_mode()
    def launch(self, plan: Plan) -> Launched:
        assert plan.horizon == 1, "more than one iteration a launch is not built yet"
        self._tables.apply(plan)
        batch = self._packing.pack(plan, self._tables)
        logits = self._forward(batch)
        makers = np.flatnonzero(plan.promise > 0)
        slots = plan.rows[makers]
        chosen = self._sampler(logits, slots)
        (at,) = self.device.upload([slots])
        appended, hit = self._tables.settle(at, chosen)
        made = torch.stack((chosen, appended, hit))
        return Launched(plan.serial, len(plan.rows), makers, made, batch.tokens.shape[0], batch.padding)

    def collect(self, launched: Launched) -> Output:
        chosen, appended, hit = launched.made.cpu().numpy()
        counts = np.zeros(launched.rows, np.int64)
        tokens = np.zeros((launched.rows, 1), np.int32)
        finished = np.zeros(launched.rows, np.bool_)
        makers = launched.makers
        counts[makers], tokens[makers, 0], finished[makers] = appended, chosen, hit > 0
        return Output(launched.serial, counts, tokens, finished, launched.positions, launched.padding)

    def warm_up(self) -> None:
        """Run a prompt and a few tokens in slot 0, so that no request pays for first calls. Before the first plan only:
        it writes to blocks as if all were free."""
        sizes = self.sizes
        room = min(sizes.max_len, sizes.num_blocks * sizes.block_size)
        count = max(1, min(WARM_UP_TOKENS, room - WARM_UP_DECODES))
        steps = min(1 + WARM_UP_DECODES, room - count + 1)
        limit = min(count + steps, sizes.max_len)
        blocks = tuple(range(-(-limit // sizes.block_size)))[: sizes.num_blocks]
        sampling = Sampling(temperature=1.0, top_p=0.9)
        joins: tuple[Join, ...] = (Join(0, np.zeros(count, np.int32), NO_TOKENS, blocks, limit, sampling),)
        start = 0
        for _ in range(limit - count):
            self.collect(self.launch(_plan(start, count, joins, leaves=())))
            start, count, joins = start + count, 1, ()
        self._tables.apply(_plan(0, 1, (), leaves=(0,)))
        self.device.synchronize()


def _plan(start: int, count: int, joins: tuple[Join, ...], leaves: tuple[int, ...]) -> Plan:
    rows, starts, counts, promise = (np.array([value], np.int64) for value in (0, start, count, 1))
    return Plan(0, rows, starts, counts, promise, joins, leaves, NO_BLOCKS, seats=1)
