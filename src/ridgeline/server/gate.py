"""Gate: what happens to every request before and after its route. Knows headers; knows no completion.

An ASGI application around another one: it names the request, asks for a key, bounds how long a body may take, opens and
closes the books, and answers for our own mistakes. It adds one plain function call to a message that is sent.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ridgeline.core.errors import RidgelineError, TimedOut
from ridgeline.server.auth import Keys
from ridgeline.server.errors import Forbidden, Unauthorized, answer_error, defect
from ridgeline.server.visit import Books, Visit

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
ADMIN_PATHS = ("/v1/profile",)
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

    async def _pass(
        self, scope: Scope, receive: Receive, send: Send, visit: Visit, headers: dict[bytes, bytes]
    ) -> None:
        for_admins = scope["path"] in ADMIN_PATHS
        if for_admins or (self._keys and not self._doors.open(scope["path"])):
            refusal = self._refusal(for_admins, headers, visit)
            if refusal is not None:
                await _refuse(refusal, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, for_admins: bool, headers: dict[bytes, bytes], visit: Visit) -> RidgelineError | None:
        sent = headers.get(b"authorization", b"").decode("latin-1")
        admin, client = self._admins.name_of(sent), self._keys.name_of(sent)
        visit.key = admin or client
        if visit.key is None and (self._keys or self._admins):
            return Unauthorized(b"authorization" in headers, for_admins)
        return Forbidden(bool(self._admins)) if for_admins and admin is None else None


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
        return self._send(message)


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
