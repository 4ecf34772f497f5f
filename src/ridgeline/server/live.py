"""Live: the server's pulse for whoever watches, twice a second. Knows counters and times; knows no route and no socket.

One sampler serves all listeners; while nobody listens nothing runs. A listener that is slow misses samples and holds
nobody up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from ridgeline.core.errors import Overloaded
from ridgeline.engine.client import EngineClient
from ridgeline.engine.messages import Counters
from ridgeline.server.front import Front, Ready
from ridgeline.server.metrics import Tally
from ridgeline.server.requests import Sees
from ridgeline.server.visit import Books

Json = dict[str, Any]

PERIOD_S = 0.5
LISTENERS = 32
SHOWN = 20  # of the newest requests
_HITS = 120  # samples that the prefix cache's rate is over, a minute: prompts come seldom


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known at one time, in seconds of a clock that never goes back. engine: None where there is none now."""

    at_s: float
    tally: Tally
    engine: EngineClient | None
    counters: Counters

    def since(self, before: Moment, field: str) -> int:
        """How much a counter grew; another engine began at 0."""
        begun = getattr(before.counters, field) if before.engine is self.engine else 0
        grown: int = getattr(self.counters, field) - begun
        return grown


class Live:
    """One event loop's thread owns it. period_s: between samples."""

    def __init__(
        self, front: Front, books: Books, period_s: float = PERIOD_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._front, self._books, self._period_s, self._clock = front, books, period_s, clock
        self._next: asyncio.Future[Json] | None = None
        self._sampler: asyncio.Task[None] | None = None
        self.listeners = 0

    def check(self) -> None:
        """Raises Overloaded if nobody more may listen now."""
        if self.listeners >= LISTENERS:
            raise Overloaded(f"{self.listeners} watch already, as many as this server takes", "requests", "live", 5)

    async def listen(self, sees: Sees) -> AsyncGenerator[Json, None]:
        """Samples until the server drains. sees: which requests the listener may."""
        self.listeners += 1
        try:
            while (sample := await self._sample()) is not None:
                shown = self._books.requests.newest(sees, SHOWN)
                yield sample | {"requests": [record.json() for record in shown]}
        finally:
            self.listeners -= 1
            if not self.listeners and self._sampler is not None:
                self._sampler.cancel()
                self._sampler = self._next = None

    async def _sample(self) -> Json | None:
        """The next one; None: the server drains."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._sampler = asyncio.create_task(self._run())
        sample, leaving = self._next, self._front.leaving
        assert leaving is not None, "the front has started"
        either: set[asyncio.Future[Any]] = {sample, leaving}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return None if leaving.done() else sample.result()

    async def _run(self) -> None:
        loop, seen = asyncio.get_running_loop(), deque([self._moment()], maxlen=_HITS)
        while True:
            await asyncio.sleep(self._period_s)
            now = self._moment()
            sample, self._next = self._next, loop.create_future()
            assert sample is not None
            sample.set_result(self._told(now, seen[-1], seen[0]))
            seen.append(now)

    def _moment(self) -> Moment:
        state, tally = self._front.state, self._books.metrics.tally
        engine = state.service.engine if isinstance(state, Ready) and not state.service.engine.failure else None
        return Moment(self._clock(), tally, engine, engine.counters if engine else Counters())

    def _told(self, now: Moment, before: Moment, long_before: Moment) -> Json:
        """Rates are since the sample before, totals since the engine began."""
        seconds, counters = now.at_s - before.at_s, now.counters
        steps, positions = now.since(before, "steps"), now.since(before, "positions")
        queried = now.since(long_before, "prefix_queried")
        state, device_ns = self._front.state, now.since(before, "device_ns")
        info = state.service.info if isinstance(state, Ready) else None
        ceiling = info.memory_bytes_per_s if info else None
        moved_per_s = now.since(before, "moved_bytes") / device_ns * 1e9 if device_ns else None
        return {
            "at_s": time.time(),
            "tokens_per_s": (now.tally.tokens - before.tally.tokens) / seconds,
            "prompt_tokens_per_s": (now.tally.prompt_tokens - before.tally.prompt_tokens) / seconds,
            "steps_per_s": steps / seconds,
            "mean_rows": (now.tally.rows - before.tally.rows) / steps if steps else 0.0,
            "running": counters.running,
            "waiting": counters.waiting,
            "kv_blocks": counters.kv_blocks,
            "num_blocks": info.num_blocks if info else 0,
            "prefix_hit_rate": now.since(long_before, "prefix_hit") / queried if queried else None,
            "padding": now.since(before, "padding") / positions if positions else 0.0,
            "preemptions": counters.preemptions,
            "step_ms": device_ns / steps / 1e6 if steps else None,
            "mbu": moved_per_s / ceiling if moved_per_s is not None and ceiling else None,
            "mbu_of": info.memory_of if info else None,
            **self._books.recent.json(),
        }
