"""Front: the server's life from starting to stopping. Knows states; knows no route and no socket.

`bring_up(report)` is an async context manager that yields the Service: what it opens it closes itself, also when it is
cancelled half way. While it has not yielded yet, requests are told to come back, with the progress it reported.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from ridgeline.core.errors import RidgelineError, Unavailable
from ridgeline.engine import messages
from ridgeline.engine.channel import Report
from ridgeline.server.service import Service

BringUp = Callable[[Report], AbstractAsyncContextManager[Service]]

log = logging.getLogger("ridgeline.server")


@dataclass(frozen=True, slots=True)
class Starting:
    """done and total are in the phase's own unit; total 0: nobody knows how much there is."""

    phase: str
    done: int
    total: int

    @property
    def percent(self) -> float | None:
        return round(min(100.0, 100 * self.done / self.total), 1) if self.total > 0 else None


@dataclass(frozen=True, slots=True)
class Ready:
    service: Service


@dataclass(frozen=True, slots=True)
class Failed:
    message: str


class Front:
    """One event loop's thread owns it; only the report may come from any thread.

    stopping is done as soon as requests must end. gave_up: the engine never started, so there is nothing to stay for.
    on_ready: called with what is served, each time it can be.
    """

    def __init__(self, bring_up: BringUp, on_ready: Callable[[Service], None] = lambda _service: None) -> None:
        self._bring_up, self._on_ready = bring_up, on_ready
        self._progress = Starting("starting", 0, 0)
        self._settled: Ready | Failed | None = None
        self._living: asyncio.Task[None] | None = None
        self.stopping: asyncio.Future[None] | None = None
        self.gave_up = False

    @property
    def state(self) -> Starting | Ready | Failed:
        return self._settled or self._progress

    def service(self) -> Service:
        """Raises Unavailable, in words for a client, unless the model can be served now."""
        if self.stopping is None or self.stopping.done():
            raise Unavailable("the server is stopping")
        state = self.state
        if isinstance(state, Starting):
            percent = "" if state.percent is None else f" ({state.percent} %)"
            raise Unavailable(f"the server is starting: {state.phase}{percent}; GET /ready tells when it is done")
        if isinstance(state, Failed):
            raise Unavailable("the engine has ended; see the server's log")
        return state.service

    def start(self) -> None:
        self.stopping = asyncio.get_running_loop().create_future()
        self._living = asyncio.create_task(self._live(self.stopping))

    def end_requests(self) -> None:
        """Every open answer ends with an error that says so, and no new one begins."""
        if self.stopping is not None and not self.stopping.done():
            self.stopping.set_result(None)

    async def stop(self) -> None:
        """End requests, then what bring_up opened. Safe to call twice."""
        self.end_requests()
        if self._living is not None:
            if isinstance(self.state, Starting):
                self._living.cancel()
            await asyncio.gather(self._living, return_exceptions=True)

    async def _live(self, stopping: asyncio.Future[None]) -> None:
        try:
            async with self._bring_up(self._report) as service:
                self._on_ready(service)
                self._settled = Ready(service)
                await self._watch(service, stopping)
        except RidgelineError as error:
            self._fail(str(error), str(error))
        except Exception as error:
            self._fail(repr(error), traceback.format_exc())

    async def _watch(self, service: Service, stopping: asyncio.Future[None]) -> None:
        """Until the server stops. An engine that ends before is reported; the routes go on answering that it did."""
        ended: asyncio.Task[messages.Failed] = asyncio.create_task(service.engine.ended())
        try:
            either: set[asyncio.Future[Any]] = {ended, stopping}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                self._settled = Failed(_for_clients(ended.result()))
                log.error("the engine has ended:\n%s", ended.result().message)
                await asyncio.wait({stopping})
        finally:
            ended.cancel()

    def _report(self, phase: str, done: int, total: int) -> None:
        self._progress = Starting(phase, done, total)

    def _fail(self, message: str, details: str) -> None:
        self.gave_up = True
        self._settled = Failed(message)
        log.error("%s", details)


def _for_clients(failed: messages.Failed) -> str:
    """A traceback belongs in the log; its last line says enough."""
    if failed.expected:
        return failed.message
    return f"{failed.message.strip().splitlines()[-1]}; the server's log has the details"
