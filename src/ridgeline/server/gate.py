"""Gate: what happens to every request before and after its route. Knows headers; knows no completion.

An ASGI application around another one: it names the request, asks for a key, bounds how long a body may take, opens and
closes the books, and answers for our own mistakes. It adds one plain function call to a message that is sent.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ridgeline.core.errors import RidgelineError, TimedOut
from ridgeline.server.auth import Keys
from ridgeline.server.errors import Forbidden, OnlyHere, Unauthorized, answer_error, defect
from ridgeline.server.visit import Books, Visit

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_PORT = re.compile(r":\d*$")
ADMIN_PATHS = ("/v1/profile",)
WATCH_PATHS = ("/v1/recording",)  # an operator's too, but without any key this machine itself may look
OWN_PATHS = ("/v1/requests", "/v1/live")  # with a key its own, to an operator everybody's
PAGES = ("/", "/favicon.svg", "/docs", "/openapi.json")
ASSETS = ("/assets/", "/docs/assets/")

log = logging.getLogger("ridgeline.server")


@dataclass(frozen=True, slots=True)
class Doors:
    """Which paths need no key though there are keys."""

    open_metrics: bool = False
    open_page: bool = False

    def open(self, path: str) -> bool:
        if path == "/health" or (self.open_metrics and path == "/metrics"):
            return True
        return self.open_page and (path in PAGES or path.startswith(ASSETS))


class Gate:
    """admins: their keys open everything, those in keys all but the operator's own routes."""

    def __init__(
        self, app: ASGIApp, books: Books, keys: Keys, admins: Keys, doors: Doors, body_timeout_s: float
    ) -> None:
        self._app, self._books, self._keys, self._admins, self._doors = app, books, keys, admins, doors
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        visit = Visit(self._books, _request_id(headers.get(b"x-request-id", b"")), scope["method"], scope["path"])
        scope.setdefault("state", {})["visit"] = visit
        answer = _Answer(send, visit)
        try:
            await self._pass(scope, _Timed(receive, self._body_timeout_s), answer.send, visit, headers)
        except Exception:
            visit.error = "internal_error"
            if answer.status:
                raise  # too late for words: the connection is closed, and uvicorn writes the traceback
            log.exception("a defect in the server, request %s", visit.request_id)
            await defect()(scope, receive, answer.send)
        finally:
            visit.close(answer.status)
            visit.over()

    async def _pass(
        self, scope: Scope, receive: Receive, send: Send, visit: Visit, headers: dict[bytes, bytes]
    ) -> None:
        path = scope["path"]
        for_admins, to_watch = path in ADMIN_PATHS, _to_watch(path)
        if for_admins or to_watch or (self._keys and not self._doors.open(path)):
            here = to_watch and not self._keys and not self._admins and _from_here(scope, headers)
            refusal = self._refusal(path, here, headers, visit)
            if refusal is not None:
                await _refuse(refusal, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, path: str, here: bool, headers: dict[bytes, bytes], visit: Visit) -> RidgelineError | None:
        """here: this machine itself asks, and there are no keys that would tell who may."""
        sent = headers.get(b"authorization", b"").decode("latin-1")
        admin, client = self._admins.name_of(sent), self._keys.name_of(sent)
        visit.key, visit.operator = admin or client, here or admin is not None
        if visit.key is None and (self._keys or self._admins):
            return Unauthorized(b"authorization" in headers, path in (*ADMIN_PATHS, *WATCH_PATHS))
        if path in ADMIN_PATHS:
            return Forbidden(bool(self._admins)) if admin is None else None
        if not _to_watch(path) or visit.operator or (client is not None and path not in WATCH_PATHS):
            return None
        return OnlyHere() if not self._keys and not self._admins else Forbidden(bool(self._admins))


def _to_watch(path: str) -> bool:
    return path in WATCH_PATHS or path in OWN_PATHS or path.startswith("/v1/requests/")


def _from_here(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether the request comes from this machine, and was meant for it.

    The Host header is looked at because a page of somebody else's can let its own name lead to 127.0.0.1 and would then
    read, with its visitor's browser, what only that visitor may.
    """
    client = scope.get("client")
    host = _PORT.sub("", headers.get(b"host", b"").decode("latin-1"))
    return client is not None and _is_loopback(client[0]) and (host == "localhost" or _is_loopback(host.strip("[]")))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


async def _refuse(error: RidgelineError, scope: Scope, receive: Receive, send: Send) -> None:
    response = await answer_error(Request(scope), error)
    await response(scope, receive, send)


def _request_id(given: bytes) -> str:
    """The client's own name for the request, if it can stand in a header and a log; otherwise a new one."""
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


class _Answer:
    """What is sent to the client. status: 0 until the answer has begun. The books close just before its last byte."""

    def __init__(self, send: Send, visit: Visit) -> None:
        self._send, self._visit = send, visit
        self.status = 0

    def send(self, message: Message) -> Awaitable[None]:
        # No coroutine of its own: this is called for every event of a stream.
        if message["type"] == "http.response.start":
            self.status = message["status"]
            name = (b"x-request-id", self._visit.request_id.encode())
            message = {**message, "headers": [*message.get("headers", ()), name]}
        elif not message.get("more_body", False):
            self._visit.close(self.status)
            return self._last(message)
        return self._send(message)

    async def _last(self, message: Message) -> None:
        await self._send(message)
        self._visit.over()


class _Timed:
    """receive, but the whole body has to come in time; afterwards it waits for the client to leave as long as it takes.

    Raises TimedOut.
    """

    def __init__(self, receive: Receive, timeout_s: float) -> None:
        self._receive, self._timeout_s = receive, timeout_s
        self._until_s: float | None = None
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        now_s: Callable[[], float] = asyncio.get_running_loop().time
        if self._until_s is None:
            self._until_s = now_s() + self._timeout_s
        try:
            async with asyncio.timeout_at(self._until_s):
                message = await self._receive()
        except TimeoutError:
            raise TimedOut(f"the body did not come within {self._timeout_s:g} s", "body_timeout") from None
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message
