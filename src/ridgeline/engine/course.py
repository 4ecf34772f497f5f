"""Course: how one request goes, as its reader's side of the channel sees it. Knows stamps and the End; no token.

Whoever reads a stream is at any moment waiting for news, working on what came, or writing it to its client. Before the
End comes that is only noted, because three stamps an event cost the front 1.3 us of 11 (scripts/bench_front.py, on a
Xeon); the time after it is stamped at each change, so it is split exactly.
"""

from __future__ import annotations

import time

from ridgeline.core.types import End

WAITING, WORKING, WRITING, OVER = range(4)

SAMPLED = 16  # of so many pieces of news the work on one is timed

_now_ns = time.perf_counter_ns


class Course:
    """asked_ns: when the engine was asked. doing: what the reader does now. end: what the engine said.

    answered_ns: when the End, or the news that there will be none, reached this process; 0 before. spent_ns: by what
    the reader did, from then on. pieces: of news taken before that. blocked_ns: of that time, in which the client did
    not read, in whole steps of the engine. timing_ns: since when the work on a piece is timed; 0: it is not.
    """

    __slots__ = (
        "_samples",
        "_since_ns",
        "_timed_ns",
        "answered_ns",
        "asked_ns",
        "blocked_ns",
        "doing",
        "end",
        "key",
        "pieces",
        "spent_ns",
        "timing_ns",
    )

    def __init__(self, key: int, asked_ns: int) -> None:
        self.key, self.asked_ns, self.doing = key, asked_ns, WAITING
        self.answered_ns = self._since_ns = self.pieces = self.blocked_ns = self.timing_ns = 0
        self._timed_ns = self._samples = 0
        self.spent_ns = [0, 0, 0, 0]
        self.end: End | None = None

    def turn(self, doing: int) -> None:
        """From now on the reader does that."""
        if self.answered_ns:
            self.settle(_now_ns())
        self.doing = doing

    def settle(self, now_ns: int) -> None:
        """Bring the sums up to now."""
        if self.answered_ns:
            self.spent_ns[self.doing] += now_ns - self._since_ns
            self._since_ns = now_ns

    def answer(self, end: End | None) -> None:
        """The engine will say no more. None: it refused the request, or died."""
        self.end, self.answered_ns = end, _now_ns()
        self._since_ns = self.answered_ns

    def close(self, now_ns: int) -> None:
        """The last byte is handed over, or nobody takes it: the sums stay as they are. Harmless when called again."""
        self.settle(now_ns)
        self.doing = OVER

    def came_back(self, passed_ns: int) -> None:
        """The reader wants the next piece. passed_ns: the engine's newest step came so long after the piece was taken,
        which it only can where the client did not read what was written."""
        if self.pieces and passed_ns:
            self.blocked_ns += passed_ns
        elif self.timing_ns:
            self._timed_ns += _now_ns() - self.timing_ns
            self._samples += 1
        self.timing_ns = 0

    @property
    def worked_ns(self) -> int:
        """On pieces of news before the last, as far as they tell that were timed."""
        return self._timed_ns * self.pieces // self._samples if self._samples else 0
