"""The listening server: sockets, signals and the exit code around an app. Knows uvicorn; knows no route.

The first SIGTERM or Ctrl-C drains: newcomers are told to come back (the sockets stay open for that), requests in flight
go on to their end or to the time limit, and the exit code is 0, as with other servers of models. A second signal ends
the process at once, with 128 + its number.

The ports are taken before anything else happens, so that a port in use is told before a model is loaded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from ridgeline.core.errors import ConfigError
from ridgeline.server.front import Failed, Front
from ridgeline.server.protocol import bounded

_BACKLOG = 2048
DRAIN_S = 30.0
_SHUTDOWN_S = 5  # for clients that do not take the end of their answer
_WILDCARDS = ("0.0.0.0", "::", "")
_TRIES = 32  # free ports that may be free for one address only


Say = Callable[[str], None]


def run_server(
    app: Starlette, host: str, port: int, announce: Say, say: Say | None = None, drain_s: float = DRAIN_S
) -> int:
    """Serve until a signal or until the engine is given up; the exit code. Raises ConfigError if it cannot listen.

    announce: called with the real URL once connections are accepted; the model may still be loading. say: hears what
    the operator should know while the server drains. drain_s: that requests in flight have to end.
    """
    return Server(app, host, port, announce, say, drain_s).run()


def _say_nothing(_line: str) -> None:
    """Nobody listens."""


class Server:
    """run() in any thread; signals are heard in the main thread only. stop() may be called from any thread."""

    def __init__(
        self, app: Starlette, host: str, port: int, announce: Say, say: Say | None = None, drain_s: float = DRAIN_S
    ) -> None:
        self._sockets = listen(host, port)
        self.port: int = self._sockets[0].getsockname()[1]
        self.url = _url(host, self.port)
        self._front: Front = app.state.front
        # Off: uvicorn would otherwise print and parse things that belong to the command line.
        config = uvicorn.Config(
            app, lifespan="on", log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=_SHUTDOWN_S,
            timeout_keep_alive=30, server_header=False, backlog=_BACKLOG,
            http=bounded(app.state.limits),
        )  # fmt: skip
        drain = _Drain(self._front, say or _say_nothing, drain_s)
        self._uvicorn = _Uvicorn(config, drain, lambda: announce(self.url))

    def run(self) -> int:
        self._uvicorn.run(sockets=self._sockets)
        return 1 if isinstance(self._front.state, Failed) else 0

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        return len(self._uvicorn.server_state.tasks)

    def stop(self) -> None:
        self._uvicorn.should_exit = True


class _Drain:
    """The time between the wish to end and the end. clock: monotonic seconds."""

    def __init__(self, front: Front, say: Say, drain_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.front, self._say, self._drain_s, self._clock = front, say, drain_s, clock
        self._until_s: float | None = None

    def over(self, in_flight: int) -> bool:
        """Begin to drain, or go on; whether nothing is in flight any more, or the time is up."""
        if self._until_s is None:
            self.front.drain()
            self._until_s = self._clock() + self._drain_s
            if in_flight and self._drain_s:
                requests = "1 request" if in_flight == 1 else f"{in_flight} requests"
                self._say(f"finishing {requests}, for {self._drain_s:g} s at most; Ctrl-C again to stop now")
        if not in_flight:
            return True
        if late := self._clock() >= self._until_s:
            self._say(f"ending {in_flight} in flight: the time to drain is over")
        return late


class _Uvicorn(uvicorn.Server):
    """uvicorn, but it drains, an engine that was given up ends it, and signals end it without a traceback."""

    def __init__(self, config: uvicorn.Config, drain: _Drain, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain, self._front, self._on_started = drain, drain.front, on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def on_tick(self, counter: int) -> bool:
        ending = await super().on_tick(counter)
        return self._front.gave_up or (ending and self._drain.over(len(self.server_state.tasks)))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._front.end_requests()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {one: signal.signal(one, self.handle_exit) for one in signals}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.should_exit:
            # The second time: whatever hangs is not waited for. An engine process sees our end of the pipe close.
            sys.stdout.flush()
            os._exit(128 + sig)
        self.should_exit = True


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets. localhost: on 127.0.0.1 and, where there is IPv6, on ::1 with the same port."""
    if host != "localhost":
        family, address = _resolve(host)
        return [_bound(family, address, port)]
    for attempt in range(_TRIES):
        first = _bound(socket.AF_INET, "127.0.0.1", port)
        try:
            return [first, _bound(socket.AF_INET6, "::1", first.getsockname()[1])]
        except _NoAddress:
            return [first]  # no IPv6 here
        except ConfigError:
            first.close()
            if port != 0 or attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable: the last attempt raises")


class _NoAddress(ConfigError):
    """This machine does not have that address."""


def _resolve(host: str) -> tuple[socket.AddressFamily, str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigError(f"--host {host}: cannot be resolved to an address") from None
    return found[0][0], str(found[0][4][0])


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        raise _NoAddress(f"--host {address}: this machine has no such kind of address") from None
    try:
        if os.name == "posix":  # elsewhere the option would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _refusal(error, address, port) from None
    return sock


def _refusal(error: OSError, address: str, port: int) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"--port {port}: in use on {address}; stop what listens there, or choose another (0: a free one)"
        )
    if error.errno == errno.EACCES:
        return ConfigError(f"--port {port}: this user may not listen there; choose one above 1023")
    if error.errno == errno.EADDRNOTAVAIL:
        return _NoAddress(f"--host {address}: this machine does not have that address")
    return ConfigError(f"--host {address} --port {port}: cannot listen: {error.strerror}")


def _url(host: str, port: int) -> str:
    name = "localhost" if host in _WILDCARDS else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"
