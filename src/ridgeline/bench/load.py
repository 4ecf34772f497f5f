"""Load: sends requests by the clock or by their number in flight, and keeps what became of each. Knows no HTTP."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable

from ridgeline.bench.clock import Clock
from ridgeline.bench.records import Outcome, Purpose, Shape
from ridgeline.bench.remote import REFUSED, Remote, RequestFailed

# A server that asks for a longer pause is asked again all the same, so that no load stands still.
LONGEST_PAUSE_S = 10.0
# Who is refused without a word about when to come back: at once would measure how quickly a server refuses.
SHORTEST_PAUSE_S = 0.1


class Load:
    """outcomes grows in the order in which requests end, so an interrupted load keeps what it has.

    sent: requests sent so far. on_outcome: called after each request. origin_s: the clock's time from which the
    outcomes count; None is now.
    """

    def __init__(
        self,
        remote: Remote,
        clock: Clock,
        on_outcome: Callable[[Outcome], None],
        outcomes: list[Outcome],
        origin_s: float | None = None,
    ) -> None:
        self.outcomes = outcomes
        self.sent = 0
        self._remote = remote
        self._clock = clock
        self._on_outcome = on_outcome
        self._origin_s = clock.now() if origin_s is None else origin_s

    async def open_loop(self, schedule: Iterable[tuple[float, Shape]]) -> None:
        """Starts each request at its second since the origin, whatever became of the earlier ones; returns when all
        have ended."""
        async with asyncio.TaskGroup() as group:
            for planned_s, shape in schedule:
                # From the origin, not from the last request: oversleeping must not add up.
                await self._clock.sleep(max(0.0, self._origin_s + planned_s - self._clock.now()))
                group.create_task(self._send(shape, None, "measured", planned_s))

    async def closed_loop(
        self, shapes: Iterable[Shape], in_flight: int, purpose: Purpose, until_s: float = math.inf
    ) -> None:
        """Keeps in_flight requests under way; none is sent after until_s (since the origin). Ends when all have.

        Whoever is refused waits as long as the server asked, at least SHORTEST_PAUSE_S, before sending the next, as a
        polite client does.
        """
        pending = iter(shapes)

        async def worker() -> None:
            for shape in pending:
                outcome = await self._send(shape, in_flight, purpose, None)
                if outcome.kind == REFUSED:
                    asked_s = outcome.retry_after_s or 0.0
                    await self._clock.sleep(max(SHORTEST_PAUSE_S, min(asked_s, LONGEST_PAUSE_S)))
                if self._clock.now() - self._origin_s >= until_s:
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(worker())

    async def _send(self, shape: Shape, in_flight: int | None, purpose: Purpose, planned_s: float | None) -> Outcome:
        self.sent += 1
        number = self.sent
        reply, failure = None, None
        sent_s = self._clock.now()
        try:
            reply = await self._remote.complete(shape, sent_s)
        except RequestFailed as error:
            failure = error
        outcome = Outcome(
            number=number,
            in_flight=in_flight,
            purpose=purpose,
            shape=shape,
            sent_s=sent_s - self._origin_s,
            latency_ms=(self._clock.now() - sent_s) * 1e3,
            reply=reply,
            error=str(failure) if failure else None,
            kind=failure.kind if failure else None,
            planned_s=planned_s,
            retry_after_s=failure.retry_after_s if failure else None,
        )
        self.outcomes.append(outcome)
        self._on_outcome(outcome)
        return outcome
