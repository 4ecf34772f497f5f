"""Course: how one request goes, as its reader's side of the channel sees it. Knows stamps and the End; no token.

Whoever reads a stream is at any moment waiting for news, working on what came, or writing it to its client. Three
sums that are settled at each change say how long; taking note of them when the End arrives splits what follows exactly.
"""

from __future__ import annotations

import time

from ridgeline.core.types import End

WAITING, WORKING, WRITING, OVER = range(4)

_now_ns = time.perf_counter_ns


class Course:
    """asked_ns: when the engine was asked. spent_ns: by what the reader did, up to since_ns. end: what the engine said.

    answered_ns: when the End, or the news that there will be none, reached this process; 0 before. before_ns: spent_ns
    of that moment. A stream's event costs three calls of `turn`, so it is one clock, one addition and no branch.
    """

    __slots__ = ("answered_ns", "asked_ns", "before_ns", "doing", "end", "key", "since_ns", "spent_ns")

    def __init__(self, key: int, asked_ns: int) -> None:
        self.key, self.asked_ns, self.since_ns = key, asked_ns, asked_ns
        self.doing, self.spent_ns = WAITING, [0, 0, 0, 0]
        self.before_ns: tuple[int, ...] = (0, 0, 0, 0)
        self.answered_ns = 0
        self.end: End | None = None

    def turn(self, doing: int) -> None:
        """From now on the reader does that."""
        now_ns = _now_ns()
        self.spent_ns[self.doing] += now_ns - self.since_ns
        self.since_ns, self.doing = now_ns, doing

    def settle(self) -> None:
        """Bring the sums up to now."""
        self.turn(self.doing)

    def answer(self, end: End | None) -> None:
        """The engine will say no more. None: it refused the request, or died."""
        self.settle()
        self.end, self.answered_ns, self.before_ns = end, self.since_ns, tuple(self.spent_ns)

    def close(self) -> None:
        """The last byte is handed over, or nobody takes it: the sums stay as they are. Harmless when called again."""
        self.turn(OVER)

    def beside_ns(self, doing: int) -> int:
        """What the reader did while the engine was not done."""
        return self.before_ns[doing] if self.answered_ns else self.spent_ns[doing]

    def after_ns(self, doing: int) -> int:
        """What the reader did since the engine's last news came."""
        return self.spent_ns[doing] - self.before_ns[doing] if self.answered_ns else 0
