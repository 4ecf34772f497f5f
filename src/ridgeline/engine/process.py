"""EngineProcess: a process for an engine, started before anybody knows which. Knows pipes and signals; no message.

An engine's libraries take seconds to import, and its front has work of its own to do first (its imports, the model, the
tokenizer). So the process starts at once, imports what any engine needs, and waits for its order on the pipe. This file
imports nothing that takes time.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from ridgeline.engine.handover import hand_over


class EngineProcess:
    """`start`, then `give` an order, each once. As a context it is started at the beginning, and gone after the end.

    prepare: "module:function", called with given before the order is looked at. It is a name, so that whoever starts
    the process need not import what it names.
    """

    def __init__(self, prepare: str | None = None, *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, self._theirs = context.Pipe()
        arguments = (prepare, given, self._theirs, time.perf_counter_ns())
        self.process = context.Process(target=_child, args=arguments, name="ridgeline-engine", daemon=True)

    def start(self) -> None:
        """Harmless when it was started before."""
        if self.process.pid is not None:
            return
        with _signals_held():
            # A signal that was held back ends the front before anybody can call __exit__. At its exit multiprocessing
            # would then ask this process to end with a signal that it ignores, and wait for ever.
            atexit.register(self.kill)
            self.process.start()
        self._theirs.close()  # ours of theirs: otherwise the pipe never reports its end

    def give(self, order: Any) -> None:
        """Anything that can be pickled; the process hosts it (engine/channel.py)."""
        assert self.process.pid is not None, "start() comes first"
        with contextlib.suppress(OSError):  # the process has ended: whoever reads the pipe sees that as well
            hand_over(order, self.connection, self.process.pid)

    def kill(self) -> None:
        if self.process.pid is not None:
            self.process.kill()

    def join(self, longest_s: float) -> None:
        """Until it has ended, by force after so many seconds."""
        if self.process.pid is not None:
            self.process.join(longest_s)
            if self.process.is_alive():
                self.process.kill()
                self.process.join()
            atexit.unregister(self.kill)

    def __enter__(self) -> EngineProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.join(0)


_FOR_THE_FRONT = {signal.SIGINT, signal.SIGTERM}
"""What a terminal, a supervisor or `timeout` sends to the whole group: the front gets it as well, and decides."""


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """A process started inside has these signals blocked until it ignores them, which takes it half a second.

    Here they are held back as long, and none is lost.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # it would be started inside, and unblocks them when it was
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_FRONT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(prepare: str | None, given: tuple[Any, ...], connection: Connection, begun_ns: int) -> None:
    for one in _FOR_THE_FRONT:
        signal.signal(one, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_FRONT)
    from ridgeline.engine.channel import host_ordered

    host_ordered(connection, lambda: _prepare(prepare, given), begun_ns)


def _prepare(name: str | None, given: tuple[Any, ...]) -> None:
    """What fails here fails again when it is needed, where its error has a way to the operator."""
    if name is None:
        return
    module, _, function = name.partition(":")
    with contextlib.suppress(Exception):
        prepare: Callable[..., None] = getattr(__import__(module, fromlist=[function]), function)
        prepare(*given)
