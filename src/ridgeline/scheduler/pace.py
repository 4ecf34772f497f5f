"""Pace: how many tokens of prompts a step may compute beside the rows that decode in it, so that their streams keep
theirs. Knows what steps take; knows no request, no block and no clock."""

from __future__ import annotations

import sys
from typing import Protocol

from ridgeline.core.steptime import StepTime


class Pace(Protocol):
    def room(self, rows: int, context: int) -> int:
        """Tokens of prompts, at least one. rows: that decode in the step; context: tokens that they look back at, all
        of them together."""
        ...


class Unpaced:
    """As many as the step's budget has left."""

    def room(self, rows: int, context: int) -> int:  # noqa: ARG002
        return sys.maxsize


class Paced:
    """The step is to end within `goal_ns`, the time between two tokens of a stream that nobody minds.

    Where decoding alone takes more than half of that, prompts get as much time as decoding does: streams have half
    their pace for a while, and nobody starves. The goal is the idea of Sarathi-Serve (Agrawal et al. 2024), which finds
    one budget for it by profiling; here the budget follows from who decodes in the step.
    """

    def __init__(self, goal_ns: float, step: StepTime) -> None:
        assert goal_ns > 0, goal_ns
        self._goal_ns, self._step = goal_ns, step

    def room(self, rows: int, context: int) -> int:
        decode_ns = self._step.decode_ns(rows, context)
        left_ns = max(self._goal_ns - decode_ns, decode_ns)
        if left_ns >= sys.maxsize * self._step.position_ns:  # a position that costs nothing, as far as could be seen
            return sys.maxsize
        return max(1, int(left_ns / self._step.position_ns))
