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
from ridgeline.ops.turns import turns_of
from ridgeline.runner.forward import Model
from ridgeline.runner.slots import SlotTables

TURNS = 64
"""Steps of a launch at most: the bound of --max-steps-per-visit."""

ChooseThere = Callable[[Tensor, Tensor], Tensor]
"""(hidden [rows, d_model], slots [rows]), both on the device -> tokens [rows] int64, without asking the host."""


class SteadySteps:
    """`seat` the rows, `begin` a launch of some turns, run a step for each, and `made` is what they made.

    Rows that are over compute their last position again: what they write is what lies there, or goes to scratch.
    A row of nobody is that of the empty slot, which is over from the start.
    """

    def __init__(self, model: Model, attention: SteadyAttention, tables: SlotTables) -> None:
        self._model, self._attention, self._tables = model, attention, tables
        self._turns = turns_of(tables, tables.device)
        where, self._most = tables.device.torch_device, tables.sizes.slots
        self._slots = torch.full((self._most,), tables.empty_slot, dtype=torch.int64, device=where)
        self._made = torch.zeros(TURNS * 3 * self._most, dtype=torch.int32, device=where)
        self._turn = torch.zeros(1, dtype=torch.int64, device=where)  # of self._made, where the next step writes
        self._rows: Ints = NO_INTS
        self._next: int | None = None  # what self._turn will be when all that was launched is done

    def step(self, seats: int, choose: ChooseThere) -> None:
        """One token for each of the first `seats` rows."""
        slots = self._slots[:seats]
        begun = self._turns.begin(slots)
        meta = self._attention.plan_steady(begun.block_tables, begun.contexts)
        hidden = self._model.hidden(begun, lambda layer, q, k, v: self._attention(layer, q, k, v, meta))
        self._turns.end(slots, choose(hidden, slots), self._ring(seats), self._turn)

    def seat(self, rows: Ints) -> None:
        """The slots of the steps to come; what is seated already is not uploaded."""
        if np.array_equal(rows, self._rows):
            return
        self._rows = NO_INTS  # an interrupt may come between
        seated = np.full(self._most, self._tables.empty_slot, np.int64)
        seated[: len(rows)] = rows
        (slots,) = self._tables.device.upload([seated])
        self._slots.copy_(slots)
        self._rows = rows

    def begin(self, turns: int) -> int:
        """Make room for so many results. Returns the place of the first."""
        first, self._next = self._next, None  # an interrupt may come between
        if first is None or first + turns > TURNS:
            first = 0
            self._turn.zero_()
        return first

    def made(self, first: int, turns: int, seats: int) -> Tensor:
        """[turns, 3, seats] token, appended, is a stop id. To be downloaded before the next launch."""
        self._next = first + turns
        return self._ring(seats)[first : first + turns]

    def rehearse(self) -> None:
        """Nobody is seated, so that steps do no harm, whatever becomes of them."""
        self._rows, self._next = NO_INTS, None
        self._slots.fill_(self._tables.empty_slot)

    def _ring(self, seats: int) -> Tensor:
        return self._made[: TURNS * 3 * seats].view(TURNS, 3, seats)
