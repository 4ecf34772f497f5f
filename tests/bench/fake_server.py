"""A server that says what a test scripted: real HTTP on 127.0.0.1, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Body = dict[str, Any]


@dataclass(frozen=True)
class Stream:
    """A streamed answer, a write for each part. whole: ends as it should; otherwise the connection breaks."""

    parts: tuple[bytes, ...]
    whole: bool = True


Answer = tuple[int, Body] | Stream
DONE = b"data: [DONE]\n\n"


def event(body: Any) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def chunk(text: str, finish_reason: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "text": text, "finish_reason": finish_reason}]})


def streamed(tokens: int, prompt_tokens: int = 5, *, usage: bool = True) -> Stream:
    """A whole completion of that many tokens, an event each."""
    parts = [chunk("x")] * (tokens - 1) + [chunk("x", "length")]
    if usage:
        parts.append(event({"choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}}))
    return Stream((*parts, DONE))


MODEL: Body = {
    "id": "tiny",
    "object": "model",
    "root": "tiny",
    "max_model_len": 64,
    "ridgeline": {"dtype": "float32", "device": "cpu", "batching": "dynamic", "note": None},
}


def completion(timings: Body | None, prompt_tokens: int = 5, tokens: int = 4) -> tuple[int, Body]:
    choice = {"index": 0, "text": "x", "finish_reason": "length", "logprobs": None}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}
    return 200, {"choices": [choice if timings is None else choice | {"timings": timings}], "usage": usage}


def error(status: int, message: str) -> tuple[int, Body]:
    return status, {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


@dataclass
class Script:
    """What the server says to whom; None in place of an answer hangs up.

    ready: one answer a probe, the last one again and again; empty: no such route. complete: gets the number of the
    request, from 0, and its body. headers: of each request. retry_after: a header of every answer that is no stream.
    together: answers wait until so many requests have come. silent: requests that never get an answer. peak: most
    requests that were under way at once.
    """

    complete: Callable[[int, Body], Answer | None]
    ready: Sequence[Answer | None] = field(default_factory=lambda: [(200, {"status": "ready"})])
    models: tuple[int, Body] = (200, {"object": "list", "data": [MODEL]})
    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    retry_after: str | None = None
    together: int = 0
    silent: frozenset[int] = frozenset()
    probes: int = 0
    under_way: int = 0
    peak: int = 0
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def on_ready(self, request: web.Request) -> web.StreamResponse:
        answer = self.ready[min(self.probes, len(self.ready) - 1)]
        self.probes += 1
        return send(request, answer)

    async def on_models(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(self.models[1], status=self.models[0])

    async def on_complete(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        number = len(self.bodies)
        self.bodies.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        answer = self.complete(number, body)
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            async with self.arrived:
                self.arrived.notify_all()
                await self.arrived.wait_for(lambda: len(self.bodies) >= self.together and number not in self.silent)
        finally:
            self.under_way -= 1
        if isinstance(answer, Stream):
            return await stream(request, answer)
        return send(request, answer, {"Retry-After": self.retry_after} if self.retry_after else None)


def send(request: web.Request, answer: Answer | None, headers: dict[str, str] | None = None) -> web.StreamResponse:
    if answer is None:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()
    assert not isinstance(answer, Stream)
    return web.json_response(answer[1], status=answer[0], headers=headers)


async def stream(request: web.Request, answer: Stream) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for part in answer.parts:
        await response.write(part)
    if not answer.whole:
        assert request.transport is not None
        request.transport.close()  # after what was written, so that the client has seen it
    return response


@contextlib.contextmanager
def serving(script: Script) -> Iterator[str]:
    """Yields the server's address."""
    app = web.Application()
    if script.ready:
        app.router.add_get("/ready", script.on_ready)
    app.router.add_get("/v1/models", script.on_models)
    app.router.add_post("/v1/completions", script.on_complete)
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    async def stop() -> None:
        await runner.cleanup()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:  # requests that were never to be answered
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
