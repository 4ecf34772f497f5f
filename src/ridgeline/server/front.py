"""Front: the server's life: starting, ready, restoring an engine that died, draining. Knows no route and no socket.

`bring_up(report)` is an async context manager that yields the Service: what it opens it closes itself, also when it is
cancelled half way. While it has not yielded yet, requests are told to come back, with the progress it reported. When
the engine of a Service ends by itself, the context is left and, after a delay, bring_up is called again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from ridgeline.core.errors import RidgelineError, Stopping, Unavailable
from ridgeline.engine import messages
from ridgeline.engine.channel import Report
from ridgeline.engine.supervisor import Restarts
from ridgeline.server.service import Service

BringUp = Callable[[Report], AbstractAsyncContextManager[Service]]

log = logging.getLogger("ridgeline.server")


@dataclass(frozen=True, slots=True)
class Starting:
    """done and total are in the phase's own unit; total 0: nobody knows how much there is.

    reason: why the engine must be restored, "" at the first start. attempt: tries since it last served.
    """

    phase: str
    done: int
    total: int
    attempt: int = 0
    reason: str = ""
    retry_after_s: int = 1

    @property
    def status(self) -> str:
        return "restoring" if self.reason else "starting"

    @property
    def percent(self) -> float | None:
        return round(min(100.0, 100 * self.done / self.total), 1) if self.total > 0 else None


@dataclass(frozen=True, slots=True)
class Ready:
    """beside: what the engine still does while it serves, "" for nothing."""

    service: Service
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    message: str


class Front:
    """One event loop's thread owns it; only the report may come from any thread.

    restarts: how often and how soon an engine that died is brought up again; default: it is not. on_ready: called with
    what is served, each time it can be.
    leaving is done as soon as no new request begins, stopping as soon as those in flight must end. gave_up: the engine
    never started, or died too often, so there is nothing to stay for.
    """

    def __init__(
        self,
        bring_up: BringUp,
        restarts: Restarts | None = None,
        on_ready: Callable[[Service], None] = lambda _service: None,
    ) -> None:
        self._bring_up, self._restarts, self._on_ready = bring_up, restarts or Restarts(0), on_ready
        self._progress = Starting("starting", 0, 0)
        self._settled: Ready | Failed | None = None
        self._living: asyncio.Task[None] | None = None
        self.leaving: asyncio.Future[None] | None = None
        self.stopping: asyncio.Future[None] | None = None
        self.draining = self.gave_up = False

    @property
    def state(self) -> Starting | Ready | Failed:
        return self._settled or self._progress

    def service(self) -> Service:
        """Raises Unavailable, in words for a client, unless the model can be served now."""
        if self.draining or self.stopping is None or self.stopping.done():
            raise Stopping("the server is stopping")
        state = self.state
        if isinstance(state, Starting):
            percent = "" if state.percent is None else f" ({state.percent} %)"
            what = "the engine died and is being restored" if state.reason else "the server is starting"
            raise Unavailable(f"{what}: {state.phase}{percent}; GET /ready tells when it is done", state.retry_after_s)
        if isinstance(state, Failed):
            raise Stopping("the engine has ended for good, and the server with it")
        return state.service

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.leaving, self.stopping = loop.create_future(), loop.create_future()
        self._living = asyncio.create_task(self._live(self.stopping))

    def drain(self) -> None:
        """No new request begins; those in flight go on."""
        self.draining = True
        _set(self.leaving)

    def end_requests(self) -> None:
        """Every open answer ends with an error that says so, and no new one begins."""
        _set(self.leaving)
        _set(self.stopping)

    async def stop(self) -> None:
        """End requests, then what bring_up opened. Safe to call twice."""
        self.end_requests()
        if self._living is not None:
            if isinstance(self.state, Starting):
                self._living.cancel()
            await asyncio.gather(self._living, return_exceptions=True)

    async def _live(self, stopping: asyncio.Future[None]) -> None:
        """One engine after another, until the server stops or there is no sense in another one."""
        attempt = 0
        while (reason := await self._one_engine(stopping)) is not None:
            if self.draining:
                return  # nobody new is let in, and what was in flight has ended with the engine
            attempt = self._progress.attempt
            delay_s = self._restarts.next_delay_s()
            if delay_s is None:
                most = self._restarts.most
                often = f" more than {most} times within an hour" if most else ""
                self._fail(reason, f"the engine died{often}; the server ends. The last reason: {reason}")
                return
            attempt += 1
            phase = f"restarting the engine in {delay_s:g} s"
            self._progress = Starting(phase, 0, 0, attempt, reason, retry_after_s=math.ceil(delay_s))
            await asyncio.sleep(delay_s)
            if self.draining:
                return

    async def _one_engine(self, stopping: asyncio.Future[None]) -> str | None:
        """Why the engine ended or could not be restarted, for clients to read. None: there is nothing to restore."""
        try:
            async with self._bring_up(self._report) as service:
                self._progress = Starting("starting", 0, 0)
                self._on_ready(service)
                self._settled = Ready(service, service.info.beside)
                self._restarts.serving()
                return await self._watch(service, stopping)
        except RidgelineError as error:
            message, details = str(error), "\n".join([str(error), *getattr(error, "__notes__", ())])
        except Exception as error:
            message, details = repr(error), traceback.format_exc()
        if not self._progress.reason:
            self._fail(message, details)
            return None
        log.error("the engine could not be restored:\n%s", details)
        return message

    async def _watch(self, service: Service, stopping: asyncio.Future[None]) -> str | None:
        """Until the server stops (None) or the engine ends by itself: why, in words for clients."""
        ended: asyncio.Task[messages.Failed] = asyncio.create_task(service.engine.ended())
        try:
            either: set[asyncio.Future[Any]] = {ended, stopping}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                return None
            reason = ended.result().brief
            log.error("the engine has ended:\n%s", ended.result().message)
            self._progress = Starting("clearing away the engine that died", 0, 0, reason=reason)
            self._settled = None
            return reason
        finally:
            ended.cancel()

    def _report(self, phase: str, done: int, total: int) -> None:
        if isinstance(self._settled, Ready):
            log.info("%s", phase)
            self._settled = Ready(self._settled.service)
            return
        at = self._progress
        self._progress = Starting(phase, done, total, at.attempt, at.reason)

    def _fail(self, message: str, details: str) -> None:
        self.gave_up = True
        self._settled = Failed(message)
        log.error("%s", details)


def _set(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
