"""The engine's life: take messages, step, deliver; sleep when there is nothing to do. Knows no socket and no HTTP.

It polls nothing: an idle loop waits for a message, or until the moment the policy named (a window closing).
"""

from __future__ import annotations

import queue
from collections.abc import Callable

from ridgeline.core.errors import BadRequest
from ridgeline.core.types import NO_INTS, NO_TOKENS, End, Events
from ridgeline.engine.engine import Engine
from ridgeline.engine.messages import AskProfile, AskTimings, In, Out, Ping, Pong, Refused, Step, Submit, TimingsNow

Inbox = queue.SimpleQueue[In | None]  # None: the other side is gone


class EngineLoop:
    def __init__(self, engine: Engine, inbox: Inbox, deliver: Callable[[Out], None]) -> None:
        self.engine, self.inbox, self.deliver = engine, inbox, deliver

    def run(self) -> None:
        """Until the other side is gone. An exception in a step ends the loop: it has no business going on."""
        try:
            self._run()
        finally:
            self.engine.profiler.close()

    def _run(self) -> None:
        idle = False
        while self._take(idle):
            events = self.engine.step()
            self.engine.profiler.turn(stepped=events is not None)
            idle = events is None and not self.engine.idle()
            if events is not None and (len(events.keys) or events.ends):
                self.deliver(Step.of(events, self.engine.counters()))

    def _take(self, idle: bool) -> bool:
        """Handle what has come; when idle, wait for it. False: the other side is gone."""
        try:
            message = self.inbox.get(timeout=self._patience()) if idle else self.inbox.get_nowait()
            while message is not None:
                self._handle(message)
                message = self.inbox.get_nowait()
            return False
        except queue.Empty:
            return True

    def _patience(self) -> float | None:
        """Seconds until the policy or the profiler wants to look again; None: until a message comes."""
        wakes = [wake for wake in (self.engine.wake_ns, self.engine.profiler.wake_ns) if wake is not None]
        return max(0, min(wakes) - self.engine.clock()) / 1e9 if wakes else None

    def _handle(self, message: In) -> None:
        if isinstance(message, Submit):
            try:
                self._over(self.engine.submit(message.request()))
            except BadRequest as error:
                self.deliver(Refused(message.key, str(error), error.param))
        elif isinstance(message, Ping):
            self.deliver(Pong(message.id))
        elif isinstance(message, AskProfile):
            self.deliver(self.engine.profiler.answer(message))
        elif isinstance(message, AskTimings):
            self.deliver(TimingsNow(message.id, self.engine.timings(message.keys)))
        else:
            self._over(self.engine.abort(message.key))

    def _over(self, end: End | None) -> None:
        if end is not None:
            self.deliver(Step.of(Events(NO_INTS, NO_INTS, NO_TOKENS, (end,)), self.engine.counters()))
