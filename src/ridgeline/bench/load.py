"""Load: sends requests by the clock or by their number in flight, and keeps what became of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from ridgeline.bench.clock import Clock
from ridgeline.bench.records import Outcome, Purpose, Shape
from ridgeline.bench.remote import Remote, RequestFailed


class Load:
    """outcomes grows in the order in which requests end, so an interrupted load keeps what it has.

    sent: requests sent so far. on_outcome: called after each request.
    """

    def __init__(
        self, remote: Remote, clock: Clock, on_outcome: Callable[[Outcome], None], outcomes: list[Outcome]
    ) -> None:
        self.outcomes = outcomes
        self.sent = 0
        self._remote = remote
        self._clock = clock
        self._on_outcome = on_outcome
        self._origin_s = clock.now()

    async def open_loop(self, shapes: Sequence[Shape], delay_s: float) -> None:
        """Starts a request every delay_s, whatever became of the earlier ones; returns when all have ended."""
        start_s = self._clock.now()
        async with asyncio.TaskGroup() as group:
            for i, shape in enumerate(shapes):
                # From the start, not from the last request: oversleeping must not add up.
                await self._clock.sleep(max(0.0, start_s + i * delay_s - self._clock.now()))
                group.create_task(self._send(shape, None, "measured"))

    async def closed_loop(self, shapes: Iterable[Shape], in_flight: int, purpose: Purpose) -> None:
        """Keeps in_flight requests under way until all have ended."""
        pending = iter(shapes)

        async def worker() -> None:
            for shape in pending:
                await self._send(shape, in_flight, purpose)

        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(worker())

    async def _send(self, shape: Shape, in_flight: int | None, purpose: Purpose) -> None:
        self.sent += 1
        number = self.sent
        reply, failure = None, None
        sent_s = self._clock.now()
        try:
            reply = await self._remote.complete(shape)
        except RequestFailed as error:
            failure = str(error)
        outcome = Outcome(
            number=number,
            in_flight=in_flight,
            purpose=purpose,
            shape=shape,
            sent_s=sent_s - self._origin_s,
            latency_ms=(self._clock.now() - sent_s) * 1e3,
            reply=reply,
            error=failure,
        )
        self.outcomes.append(outcome)
        self._on_outcome(outcome)
