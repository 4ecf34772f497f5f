"""Pace: how many tokens of prompts a step may compute beside the rows that decode in it, so that their streams keep
theirs. Knows what steps take; knows no request, no block and no clock."""

from __future__ import annotations

import sys
from typing import Protocol

from ridgeline.core.steptime import StepTime

_MOST = 4.0
"""How many times slower or faster than expected a step counts at most."""


class Pace(Protocol):
    def room(self, rows: int, context: int) -> int:
        """Tokens of prompts, at least one. rows: that decode in the step; context: tokens that they look back at, all
        of them together."""
        ...

    def expects(self, positions: int, context: int) -> float:
        """Nanoseconds of a step that it made room in, by what was known at the start; 0: it expects nothing."""
        ...

    def took(self, expected_ns: float, ns: int) -> None:
        """What such a step took."""
        ...


class Unpaced:
    """As many as the step's budget has left."""

    def room(self, rows: int, context: int) -> int:  # noqa: ARG002
        return sys.maxsize

    def expects(self, positions: int, context: int) -> float:  # noqa: ARG002
        return 0.0

    def took(self, expected_ns: float, ns: int) -> None:
        """It learns nothing."""


class Paced:
    """The step is to end within `goal_ns`, the time between two tokens of a stream that nobody minds.

    Where decoding alone takes more than half of that, prompts get as much time as decoding does: streams have half
    their pace for a while, and nobody starves. The goal is the idea of Sarathi-Serve (Agrawal et al. 2024), which finds
    one budget for it by profiling; here the budget follows from who decodes in the step. A server under load is slower
    than the steps that were timed when it started (by half, on two cores that its front shares), so what steps take is
    compared with what was expected.
    """

    def __init__(self, goal_ns: float, step: StepTime) -> None:
        assert goal_ns > 0, goal_ns
        self._goal_ns, self._step, self._slower = goal_ns, step, 1.0

    def room(self, rows: int, context: int) -> int:
        decode_ns, position_ns = self._slower * self.expects(rows, context), self._slower * self._step.position_ns
        left_ns = max(self._goal_ns - decode_ns, decode_ns)
        if left_ns >= sys.maxsize * position_ns:  # a position that costs nothing, as far as could be seen
            return sys.maxsize
        return max(1, int(left_ns / position_ns))

    def expects(self, positions: int, context: int) -> float:
        return self._step.ns(positions, context)

    def took(self, expected_ns: float, ns: int) -> None:
        # The mean of about the last four; a step that something else held up does not count in full.
        self._slower += (min(_MOST, max(1 / _MOST, ns / expected_ns)) - self._slower) / 4
