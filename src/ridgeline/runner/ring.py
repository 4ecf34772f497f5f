"""Ring: where captured steps leave the tokens that they made, until the host has asked for them. Knows no step."""

from __future__ import annotations

import torch
from torch import Tensor

from ridgeline.runner.memory import TURNS


class Ring:
    """`begin` a launch of some turns, run a step for each, and `made` is what they made. Every step writes to place
    `turn` of `of(seats)`, and moves `turn` on (ops/turns.py)."""

    def __init__(self, most_seats: int, where: torch.device) -> None:
        self._made = torch.zeros(TURNS * 3 * most_seats, dtype=torch.int32, device=where)
        self.turn = torch.zeros(1, dtype=torch.int64, device=where)
        self._next: int | None = None  # what turn will be when all that was launched is done

    def of(self, seats: int) -> Tensor:
        """[TURNS, 3, seats] token, appended, is a stop id."""
        return self._made[: TURNS * 3 * seats].view(TURNS, 3, seats)

    def begin(self, turns: int) -> int:
        """Make room for so many results. Returns the place of the first."""
        first, self._next = self._next, None  # an interrupt may come between
        if first is None or first + turns > TURNS:
            first = 0
            self.turn.zero_()
        return first

    def made(self, first: int, turns: int, seats: int) -> Tensor:
        """[turns, 3, seats]. To be downloaded before the next launch."""
        self._next = first + turns
        return self.of(seats)[first : first + turns]

    def lose(self) -> None:
        """Where `turn` is, is not known any more."""
        self._next = None
