"""Writer: the bytes of one response, whole or as events. Knows ASGI; knows no JSON and no engine."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Send

# x-accel-buffering: a proxy (nginx) must not collect the events.
_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


class Writer:
    """Bytes to one client. The response starts with the first of them, so that an early error can still be a status.

    Several choices may write at once; an event is one message, so it is never cut. A client that does not read makes
    each of them wait in `event` as soon as the socket's buffers are full.
    """

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send, self._headers = send, headers
        self._turn = asyncio.Lock()
        self.started = False

    async def whole(self, body: bytes) -> None:
        length = (b"content-length", b"%d" % len(body))
        await self._start([(b"content-type", b"application/json"), length])
        await self._send({"type": "http.response.body", "body": body})

    async def event(self, data: bytes) -> None:
        if not self.started:
            async with self._turn:  # only the start is: a lock around every event would cost more than its bytes
                if not self.started:
                    await self._start(_EVENTS)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, headers: list[tuple[bytes, bytes]]) -> None:
        start: Message = {"type": "http.response.start", "status": 200, "headers": headers + self._headers}
        await self._send(start)
        self.started = True
