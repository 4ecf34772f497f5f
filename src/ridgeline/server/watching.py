"""The routes that show what the server does: its requests, the engine's recording, and its pulse. Makes none of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ridgeline.core.errors import BadRequest, EngineDied, NotFound, Stopping
from ridgeline.core.flight import Lives, Recording, Rows, Steps
from ridgeline.server.answers import encode_json
from ridgeline.server.errors import json_response
from ridgeline.server.front import Front, Ready
from ridgeline.server.live import Live
from ridgeline.server.service import Service
from ridgeline.server.tasks import finished, gone
from ridgeline.server.visit import Books, visit_of
from ridgeline.server.waterfall import told
from ridgeline.server.writer import Writer

Json = dict[str, Any]

DEFAULT_STEPS, MOST_STEPS = 512, 100_000
_UNKEPT = [(b"cache-control", b"no-store")]


class Watching:
    """Own requests, or everybody's for an operator; the gate has seen to the rest."""

    def __init__(self, front: Front, books: Books) -> None:
        self._front, self._books = front, books

    async def requests(self, request: Request) -> Response:
        sees = visit_of(request.scope).sees
        return json_response({"object": "list", "data": [one.json() for one in self._books.requests.newest(sees)]})

    async def request(self, request: Request) -> Response:
        id = request.path_params["id"]
        record = self._books.requests.find(id, visit_of(request.scope).sees)
        if record is None:
            message = f"{id[:130]}: no such request of yours, or it was forgotten: the newest 1000 are kept"
            raise NotFound(message, code="request_not_found")
        recording = await self._latest() if record.runs else None
        return json_response(record.whole([told(record, run, recording) for run in record.runs]))

    async def recording(self, request: Request) -> Response:
        """The newest steps, with the names of the requests in them."""
        steps = _steps(request.query_params.get("steps"))
        found = await recorded(self._front.service(), steps)
        names, there = self._books.requests.names(), set(found.keys())
        named = dataclasses.replace(found, names={key: names[key] for key in there & names.keys()})
        # In a thread: thousands of steps are megabytes.
        body = await asyncio.to_thread(lambda: encode_json(named.json()))
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(named.made_unix_s))
        headers = {"Content-Disposition": f'attachment; filename="recording-{stamp}.json"'}
        return Response(body, headers=headers, media_type="application/json")

    async def _latest(self) -> Recording | None:
        """None: there is no engine that could be asked."""
        state = self._front.state
        try:
            return await recorded(state.service, MOST_STEPS) if isinstance(state, Ready) else None
        except EngineDied:
            return None


async def recorded(service: Service, steps: int) -> Recording:
    info = service.info
    return Recording(
        model=service.name,
        device=info.device,
        batching=info.batching,
        block_size=info.block_size,
        num_blocks=info.num_blocks,
        made_unix_s=time.time(),
        steps=Steps(),
        rows=Rows(),
        lives=Lives(),
    ).newest(steps)


def _steps(given: str | None) -> int:
    """Raises BadRequest."""
    if given is None:
        return DEFAULT_STEPS
    if not given.isascii() or not given.isdigit() or len(given) > 6 or not 1 <= int(given) <= MOST_STEPS:
        raise BadRequest(f"steps: must be a whole number from 1 to {MOST_STEPS}", param="steps", code="invalid_value")
    return int(given)


class Pulse:
    """Server-sent events, as an ASGI app of its own: it watches the connection while it answers."""

    def __init__(self, front: Front, live: Live) -> None:
        self._front, self._live = front, live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._front.service()
        work = asyncio.create_task(self._tell(scope, Writer(send, _UNKEPT)))
        left = asyncio.create_task(gone(receive))
        try:
            either: set[asyncio.Future[Any]] = {work, left}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            await finished(work)
            await finished(left)

    async def _tell(self, scope: Scope, writer: Writer) -> None:
        async with contextlib.aclosing(self._live.listen(visit_of(scope).sees)) as samples:
            async for sample in samples:
                await writer.event(b"data: " + encode_json(sample) + b"\n\n")
        if not writer.started:
            raise Stopping("the server is stopping")
        await writer.end()
