"""Protocol: what a connection may do before and below a request. Knows bytes and time; knows no route.

uvicorn's own protocol bounds neither the head of a request, nor the time it takes, nor that of a client which does not
read, and answers in plain text. This one does, with timers that are set only when something is waited for.
"""

from __future__ import annotations

import asyncio
import uuid
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ridgeline.server.answers import encode_json, error_object
from ridgeline.server.limits import Limits


class HeadTooLong(Exception):
    """Ends the parser; the client gets 431."""


class Protocol(HttpToolsProtocol):
    """limits: set by `bounded`. A client that takes nothing for slow_reader_timeout_s is cut, and so its request."""

    limits: Limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True  # from the connection's start or a body's end until the next head is complete
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "too many connections are open; try again later", "service_unavailable", None)
            return
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head_timer)
        _cancel(self._reader_timer)
        _cancel(self._rest_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._time_head()
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.head_bytes and not self._refused:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        _cancel(self._head_timer)
        self._head_timer = None
        if self._head_too_long():
            raise HeadTooLong
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0
        _cancel(self._rest_timer)
        self._rest_timer = None

    def on_response_complete(self) -> None:
        """An answer may be early (401, 429): the rest of its request's body gets a time that no byte of it renews."""
        super().on_response_complete()
        if not self._in_head and not self._answering and not self.transport.is_closing() and self._rest_timer is None:
            self._rest_timer = self.loop.call_later(self.limits.body_timeout_s, self.transport.close)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Called where the parser failed."""
        if self.headers and not self._in_head and self._head_too_long():
            self._refuse_head()
        else:
            self._refuse(400, "this is not a valid HTTP/1.1 request", "invalid_request_error", "invalid_http")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._time_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        _cancel(self._reader_timer)
        super().resume_writing()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _head_too_long(self) -> bool:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.limits.head_bytes

    def _time_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.body_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.transport.is_closing():
            return
        if self._answering:
            self._time_head()  # it may be unread because of the answer before it
        elif self._head_bytes:
            self._refuse(408, "the request's head did not come in time", "timeout_error", "head_timeout")
        else:
            self.transport.close()

    def _time_reader(self, waiting_bytes: int) -> None:
        _cancel(self._reader_timer)
        self._reader_timer = self.loop.call_later(
            self.limits.slow_reader_timeout_s, self._reader_is_slow, waiting_bytes
        )

    def _reader_is_slow(self, waiting_bytes: int) -> None:
        """Nothing was taken since the timer was set, unless less is waiting now."""
        now_waiting = self.transport.get_write_buffer_size()
        if now_waiting < waiting_bytes:
            self._time_reader(now_waiting)
        else:
            self.transport.abort()

    def _refuse_head(self) -> None:
        message = f"the request's head is longer than {self.limits.head_bytes} bytes"
        self._refuse(431, message, "invalid_request_error", "head_too_large")

    def _refuse(self, status: int, message: str, kind: str, code: str | None) -> None:
        """Answer without the application, and close; in the middle of another answer there is no place for words."""
        self._refused = True
        _cancel(self._head_timer)
        if self._answering:
            self.transport.close()
            return
        body = encode_json(error_object(message, kind, code=code))
        head = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: {uuid.uuid4().hex}",
            *(["retry-after: 1"] if status == 503 else []),
            "connection: close",
        ]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()


def bounded(limits: Limits) -> type[Protocol]:
    """The protocol with these limits: uvicorn makes one for each connection, and hands over nothing of ours."""
    return type("BoundedProtocol", (Protocol,), {"limits": limits})


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
