"""Steady: a decode step of rows that compute one token and make one, derived on the device from the slot tables alone.

Which slots take part lies in a buffer, what they made goes to another; both stay where they are, and the host has no
part in what is between. So a step can be captured once and replayed. Knows no plan and no graph, and not which numbers
of rows are worth one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ridgeline.attention.base import SteadyAttention
from ridgeline.core.types import NO_INTS, Ints
from ridgeline.ops.turns import Turns
from ridgeline.runner.forward import Model
from ridgeline.runner.ring import Ring
from ridgeline.runner.slots import SlotTables

ChooseThere = Callable[[Tensor, Tensor], Tensor]
"""(hidden [rows, d_model], slots [rows]), both on the device -> tokens [rows] int64, without asking the host."""


class SteadySteps:
    """`seat` the rows, and run as many steps as one likes.

    Rows that are over compute their last position again: what they write is what lies there, or goes to scratch.
    A row of nobody is that of the empty slot, which is over from the start.
    """

    def __init__(self, model: Model, attention: SteadyAttention, tables: SlotTables, turns: Turns, ring: Ring) -> None:
        self._model, self._attention, self._tables, self._turns, self._ring = model, attention, tables, turns, ring
        self._slots = torch.full(
            (tables.sizes.slots,), tables.empty_slot, dtype=torch.int64, device=tables.device.torch_device
        )
        self._rows: Ints = NO_INTS

    def step(self, seats: int, choose: ChooseThere) -> None:
        """One token for each of the first `seats` rows."""
        slots = self._slots[:seats]
        begun = self._turns.begin(slots)
        meta = self._attention.plan_steady(begun.block_tables, begun.contexts)
        hidden = self._model.hidden(begun, lambda layer, q, k, v: self._attention(layer, q, k, v, meta))
        self._turns.end(slots, choose(hidden, slots), self._ring.of(seats), self._ring.turn)

    def seat(self, rows: Ints) -> None:
        """The slots of the steps to come; what is seated already is not uploaded."""
        if np.array_equal(rows, self._rows):
            return
        self._rows = NO_INTS  # an interrupt may come between
        seated = np.full(len(self._slots), self._tables.empty_slot, np.int64)
        seated[: len(rows)] = rows
        (slots,) = self._tables.device.upload([seated])
        self._slots.copy_(slots)
        self._rows = rows

    def rehearse(self) -> None:
        """Nobody is seated, so that steps do no harm, whatever becomes of them."""
        self._rows = NO_INTS
        self._slots.fill_(self._tables.empty_slot)
