"""The listening server: sockets, signals and the exit code around an app. Knows uvicorn; knows no route.

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
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from ridgeline.core.errors import ConfigError
from ridgeline.server.front import Failed, Front
from ridgeline.server.protocol import bounded

_BACKLOG = 2048
_SHUTDOWN_S = 5  # for clients that do not take the end of their answer
_WILDCARDS = ("0.0.0.0", "::", "")
_TRIES = 32  # free ports that may be free for one address only


def run_server(app: Starlette, host: str, port: int, announce: Callable[[str], None]) -> int:
    """Serve until a signal or until bring_up fails. The exit code; raises ConfigError if it cannot listen there.

    announce: called with the real URL once connections are accepted; the model may still be loading.
    """
    return Server(app, host, port, announce).run()


class Server:
    """run() in any thread; signals are heard in the main thread only. stop() may be called from any thread."""

    def __init__(self, app: Starlette, host: str, port: int, announce: Callable[[str], None]) -> None:
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
        self._uvicorn = _Uvicorn(config, self._front, lambda: announce(self.url))

    def run(self) -> int:
        self._uvicorn.run(sockets=self._sockets)
        return 1 if isinstance(self._front.state, Failed) else 0

    def stop(self) -> None:
        self._uvicorn.should_exit = True


class _Uvicorn(uvicorn.Server):
    """uvicorn, but open streams end at once, a failed start ends it, and signals end it without a traceback."""

    def __init__(self, config: uvicorn.Config, front: Front, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._front, self._on_started = front, on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._front.gave_up

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
