"""Recent: how long requests took lately, for those who watch. Knows times; keeps a bounded number of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ridgeline.core.types import Timings

SPAN_S = 60.0
MOST = 4096  # of the newest; at more than 68 requests a second they are those of less than a minute

Json = dict[str, float]


class Window:
    """Values of the last SPAN_S seconds."""

    def __init__(self, most: int = MOST) -> None:
        self._values: deque[tuple[float, float]] = deque(maxlen=most)

    def add(self, value: float, at_s: float) -> None:
        self._values.append((at_s, value))

    def percentiles(self, at_s: float) -> Json | None:
        """Nearest rank; None where there is no value."""
        while self._values and self._values[0][0] < at_s - SPAN_S:
            self._values.popleft()
        values = sorted(value for _, value in self._values)
        if not values:
            return None
        return {f"p{share}": values[-(-len(values) * share // 100) - 1] for share in (50, 95)}


class Recent:
    """In milliseconds: to the first token, between tokens (a sequence's mean), to the end. clock: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ttft, self._itl, self._e2e = Window(), Window(), Window()

    def first_token(self, took_ns: int) -> None:
        self._ttft.add(took_ns / 1e6, self._clock())

    def ended(self, timings: Timings, arrived_ns: int, completion_tokens: int) -> None:
        """arrived_ns: of its HTTP request."""
        at_s = self._clock()
        self._e2e.add((timings.finished_ns - arrived_ns) / 1e6, at_s)
        if completion_tokens > 1 and timings.first_token_ns:
            between_ns = (timings.finished_ns - timings.first_token_ns) / (completion_tokens - 1)
            self._itl.add(between_ns / 1e6, at_s)

    def json(self) -> dict[str, Json | None]:
        at_s = self._clock()
        windows = {"ttft_ms": self._ttft, "itl_ms": self._itl, "e2e_ms": self._e2e}
        return {name: window.percentiles(at_s) for name, window in windows.items()}
