"""The routes that show what the server does: its requests, the engine's recording, and its pulse. Makes none of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ridgeline.core.errors import BadRequest, EngineDied, NotFound
from ridgeline.core.types import Timings
from ridgeline.engine.client import EngineClient
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
_PATIENCE_S = 1.0
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
        state = self._front.state
        if not record.runs or not isinstance(state, Ready):
            return json_response(record.whole([told(record, run, None, {}) for run in record.runs]))
        running = await _asked(
            state.service.engine, [run.course.key for run in record.runs if not run.course.answered_ns]
        )
        # In a thread: all steps of the ring are megabytes. After the question, so that it has the steps of the answer.
        recording = await asyncio.to_thread(state.service.recording)
        return json_response(record.whole([told(record, run, recording, running) for run in record.runs]))

    async def recording(self, request: Request) -> Response:
        """The newest steps, with the names of the requests in them."""
        steps = _steps(request.query_params.get("steps"))
        body, stamp = await asyncio.to_thread(_recorded, self._front.service(), steps)
        headers = {"Content-Disposition": f'attachment; filename="recording-{stamp}.json"'}
        return Response(body, headers=headers, media_type="application/json")


def _recorded(service: Service, steps: int) -> tuple[bytes, str]:
    """A recording and when it was made. Raises NotFound."""
    recording = service.recording(steps)
    if recording is None:
        raise NotFound("nothing is recorded here: the server runs with --recorder off", code="not_recorded")
    return encode_json(recording.json()), time.strftime("%Y%m%d-%H%M%S", time.gmtime(recording.made_unix_s))


async def _asked(engine: EngineClient, keys: list[int]) -> dict[int, Timings]:
    """How far those are that run; what is known of them if the engine is in a long step."""
    if not keys:
        return {}
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await engine.timings(keys)
    except (TimeoutError, EngineDied):
        return {}


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
        self._live.check()
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
        await writer.event(b"")  # the head: the client need not wait for the first sample to know that it was let in
        async with contextlib.aclosing(self._live.listen(visit_of(scope).sees)) as samples:
            async for sample in samples:
                await writer.event(b"data: " + encode_json(sample) + b"\n\n")
        await writer.end()
