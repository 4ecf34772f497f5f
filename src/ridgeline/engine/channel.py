"""The way to an engine: in a thread of this process, or in a process of its own. Knows messages; knows no asyncio.

Both sides drain their end at once (a thread reads the pipe), so neither ever waits for the other's socket or step.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol

from msgspec import structs

from ridgeline.core.errors import RidgelineError
from ridgeline.engine.engine import Engine
from ridgeline.engine.handover import taken_over
from ridgeline.engine.loop import EngineLoop, Inbox
from ridgeline.engine.messages import (
    EngineInfo,
    Failed,
    In,
    Out,
    Progress,
    Ready,
    decode_in,
    decode_out,
    encode,
)
from ridgeline.engine.process import EngineProcess

_LAST_STEP_S = 5  # for the step that runs when the other side ends

Report = Callable[[str, int, int], None]  # phase, done, total
MakeEngine = Callable[[Report], tuple[Engine, EngineInfo]]


class Channel(Protocol):
    """`start` once, then `send`. `on_message` is called from the channel's thread; Failed comes at most once, last."""

    def start(self, on_message: Callable[[Out], None]) -> None: ...

    def send(self, message: In) -> None: ...

    def close(self) -> None: ...


def host_engine(make: MakeEngine, inbox: Inbox, deliver: Callable[[Out], None]) -> None:
    """Build an engine and run it until the other side is gone; what goes wrong is delivered as Failed."""
    try:
        engine, info = make(lambda phase, done, total: deliver(Progress(phase, done, total)))
        deliver(Ready(info))
        EngineLoop(engine, inbox, deliver).run()
    except RidgelineError as error:
        deliver(Failed(str(error), expected=True))
    except Exception:
        deliver(Failed(traceback.format_exc(), expected=False))


class ThreadChannel:
    """The engine in a thread of this process. Messages are handed over as they are."""

    def __init__(self, make: MakeEngine) -> None:
        self._make = make
        self._inbox: Inbox = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, on_message: Callable[[Out], None]) -> None:
        arguments = (self._make, self._inbox, on_message)
        self._thread = threading.Thread(target=host_engine, args=arguments, name="engine", daemon=True)
        self._thread.start()

    def send(self, message: In) -> None:
        self._inbox.put(message)

    def close(self) -> None:
        """End the engine after the step it is in."""
        self._inbox.put(None)
        if self._thread is not None:
            self._thread.join()


class ProcessChannel:
    """The engine in a process of its own: it loads torch, this one does not.

    make must be importable by name in a new process (a module's function, or functools.partial of one). ahead: a
    process that may have been started already.
    """

    def __init__(self, make: MakeEngine, ahead: EngineProcess | None = None) -> None:
        self._make, self._engine = make, ahead or EngineProcess()
        self._connection, self.process = self._engine.connection, self._engine.process
        self._closing = self._serving = False

    def start(self, on_message: Callable[[Out], None]) -> None:
        self._engine.start()
        self._engine.give(self._make)
        threading.Thread(target=self._read, args=(on_message,), name="engine-reader", daemon=True).start()

    def send(self, message: In) -> None:
        # A broken pipe is not the sender's business: the reader sees the same end and reports it.
        with contextlib.suppress(OSError):
            self._connection.send_bytes(encode(message))

    def close(self) -> None:
        """End the engine: at once while it starts, then after the step it is in, or after five seconds in any case."""
        self._closing = True
        if not self._serving:
            self._engine.kill()
        with contextlib.suppress(OSError):
            self._connection.send_bytes(b"")
        self._engine.join(_LAST_STEP_S)

    def _read(self, on_message: Callable[[Out], None]) -> None:
        failed = False
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = decode_out(self._connection.recv_bytes())
                self._serving |= isinstance(message, Ready)
                failed |= isinstance(message, Failed)
                on_message(message)
        if not failed and not self._closing:
            self.process.join()
            on_message(Failed(f"the engine process ended with code {self.process.exitcode}", expected=False))


def host_ordered(connection: Connection, prepare: Callable[[], None], begun_ns: int) -> None:
    """The engine's process: one thread reads the pipe, the main thread prepares, builds what is ordered, and steps.

    begun_ns: when this process was started.
    """
    orders: queue.SimpleQueue[tuple[Callable[[], MakeEngine], int] | None] = queue.SimpleQueue()
    inbox: Inbox = queue.SimpleQueue()

    def read() -> None:
        with contextlib.suppress(EOFError, OSError):
            orders.put((taken_over(connection), time.perf_counter_ns()))
            while data := connection.recv_bytes():
                inbox.put(decode_in(data))
        orders.put(None)
        inbox.put(None)
        # The front is gone, perhaps killed. A step that hangs, or a load of minutes, must not outlive it; a loop that
        # ends by itself takes this thread, which is a daemon, with it.
        time.sleep(_LAST_STEP_S)
        os._exit(1)

    def deliver(message: Out) -> None:
        with contextlib.suppress(OSError):  # the front is gone; the reader has seen it too
            connection.send_bytes(encode(message))

    threading.Thread(target=read, name="reader", daemon=True).start()
    prepare()
    prepared_ns = time.perf_counter_ns()
    if (order := orders.get()) is None:
        return
    unpickled, ordered_ns = order

    def make(report: Report) -> tuple[Engine, EngineInfo]:
        engine, info = unpickled()(report)
        ahead_ms, waited_ms = ((prepared_ns - since_ns) / 1e6 for since_ns in (begun_ns, ordered_ns))
        return engine, structs.replace(info, ahead_ms=ahead_ms, ahead_waited_ms=max(0.0, waited_ms))

    host_engine(make, inbox, deliver)
