"""Restarts: when an engine that died may be tried again, and when to give up. Knows times; knows no engine.

Exponential backoff with a cap, and a bound on the restarts within a sliding hour, as init systems have them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0
STEADY_S = 60.0  # an engine that served that long did not die of its start: the next delay is the first again
PERIOD_S = 3600.0


class Restarts:
    """most: restarts within an hour; 0 for none. clock: monotonic seconds."""

    def __init__(
        self, most: int, clock: Callable[[], float] = time.monotonic, first_delay_s: float = FIRST_DELAY_S
    ) -> None:
        self.most, self._clock, self._first_delay_s = most, clock, first_delay_s
        self._begun_s: deque[float] = deque()
        self._delay_s = first_delay_s
        self._serving_since_s: float | None = None

    def serving(self) -> None:
        """The engine is ready."""
        self._serving_since_s = self._clock()

    def next_delay_s(self) -> float | None:
        """The engine died, or could not be started again: seconds to wait before the next try; None to give up."""
        now_s, since_s = self._clock(), self._serving_since_s
        self._serving_since_s = None
        if since_s is not None and now_s - since_s >= STEADY_S:
            self._delay_s = self._first_delay_s
        while self._begun_s and now_s - self._begun_s[0] >= PERIOD_S:
            self._begun_s.popleft()
        if len(self._begun_s) >= self.most:
            return None
        self._begun_s.append(now_s)
        delay_s, self._delay_s = self._delay_s, min(2 * self._delay_s, LONGEST_DELAY_S)
        return delay_s
