"""The application: which path is answered by whom. Knows routes; knows no engine internals and no socket.

`create_app(bring_up)` gives an ASGI app that answers from its first moment; see front.py for what bring_up is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import PathLike, StaticFiles
from starlette.types import Receive, Scope, Send

import ridgeline
from ridgeline.core.errors import RidgelineError
from ridgeline.engine.supervisor import Restarts
from ridgeline.server.answers import ChatShape, CompletionShape, Heading, Json, Shape, encode_json, ignored_header
from ridgeline.server.body import json_object, read_body
from ridgeline.server.completions import Answer
from ridgeline.server.errors import answer_error, answer_http_error, json_response
from ridgeline.server.front import BringUp, Failed, Front, Starting
from ridgeline.server.gate import Gate
from ridgeline.server.live import Live
from ridgeline.server.manners import Manners
from ridgeline.server.metrics import Metrics
from ridgeline.server.openai import Ask, check_model, parse_chat, parse_completion, prepare
from ridgeline.server.openapi import openapi
from ridgeline.server.profiling import Profiles
from ridgeline.server.readiness import Readiness
from ridgeline.server.service import Service
from ridgeline.server.tokenizing import Answered, detokenize, tokenize, tokenizer_info
from ridgeline.server.visit import visit_of
from ridgeline.server.watching import Pulse, Watching

_BIG_BODY_BYTES = 2**14  # to parse and encode more takes milliseconds
_QUESTIONS_AT_ONCE = 2  # of asyncio's threads, of which there are at least five

P = ParamSpec("P")
T = TypeVar("T")

WEB = Path(__file__).parent / "web"
# Pages may talk to this server and to nobody else.
_PAGE_HEADERS = {
    # Styles inline, because the chart library sets them; scripts come from files alone.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Generation:
    """A route that generates, as an ASGI app of its own: it watches the connection while it answers."""

    def __init__(self, front: Front, parse: Callable[[Json, Service], Ask], shape: Shape) -> None:
        self._front, self._parse, self._shape = front, parse, shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, stopping, visit = self._front.service(), self._front.stopping, visit_of(scope)
        assert stopping is not None
        visit.opened(service.name)
        visit.books.admission.check()
        try:
            async with visit.in_time():
                body = await read_body(Request(scope, receive))
                ask = await _worked(len(body), self._ask, body, service)
        except ClientDisconnect:
            return
        visit.parsed()
        visit.limit(ask.timeout_s)
        visit.enter(ask.prompts, ask.generations, ask.multiplier)
        async with visit.in_time():
            prompts = await _worked(len(body), prepare, ask, service)
        visit.weigh([len(prompt.ids) for prompt in prompts], ask.best_of, ask.source)
        heading = Heading(self._shape.prefix + uuid.uuid4().hex, int(time.time()), service.name)
        visit.named(heading.id)
        await Answer(ask, prompts, service, heading, self._shape, visit).respond(receive, send, stopping)

    def _ask(self, body: bytes, service: Service) -> Ask:
        return self._parse(json_object(body), service)


class Question:
    """A route that answers a JSON object with another, from what it knows.

    turns: shared by all of them, so that they never hold the threads in which generations are prepared.
    """

    def __init__(self, front: Front, answer: Callable[[Json, Service], Answered], turns: asyncio.Semaphore) -> None:
        self._front, self._answer, self._turns = front, answer, turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._front.service()
        try:
            async with visit_of(scope).in_time():
                body = await read_body(Request(scope, receive))
                async with self._turns:
                    answer, ignored = await _worked(len(body), self._encoded, body, service)
        except ClientDisconnect:
            return
        await Response(answer, headers=ignored_header(ignored), media_type="application/json")(scope, receive, send)

    def _encoded(self, body: bytes, service: Service) -> tuple[bytes, tuple[str, ...]]:
        answer, ignored = self._answer(json_object(body), service)
        return encode_json(answer), ignored


async def _worked(size: int, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What work returns, done in a thread if that many bytes would keep the streams of others waiting."""
    return await asyncio.to_thread(work, *arguments, **named) if size > _BIG_BODY_BYTES else work(*arguments, **named)


class Routes:
    """The small answers."""

    def __init__(self, front: Front, readiness: Readiness, metrics: Metrics) -> None:
        self._front, self._readiness, self._metrics = front, readiness, metrics
        self._openapi = encode_json(openapi())

    async def models(self, _request: Request) -> Response:
        return json_response({"object": "list", "data": [_model_object(self._front.service())]})

    async def model(self, request: Request) -> Response:
        service = self._front.service()
        check_model(request.path_params["id"], service)
        return json_response(_model_object(service))

    async def health(self, _request: Request) -> Response:
        return json_response({"status": "live"})

    async def ready(self, _request: Request) -> Response:
        state = self._front.state
        if self._front.draining:
            return json_response({"status": "draining"}, 503, {"Retry-After": "1", "Connection": "close"})
        if isinstance(state, Starting):
            progress = {"phase": state.phase, "percent": state.percent, "done": state.done, "total": state.total}
            again = {"attempt": state.attempt, "reason": state.reason} if state.reason else {}
            headers = {"Retry-After": str(state.retry_after_s)}
            return json_response({"status": state.status, **progress, **again}, 503, headers)
        if isinstance(state, Failed):
            return json_response({"status": "failed", "message": state.message}, 503)
        if not await self._readiness.progressing(state.service):
            return json_response({"status": "stalled"}, 503, {"Retry-After": "1"})
        return json_response({"status": "ready"} | ({"beside": state.beside} if state.beside else {}))

    async def metrics(self, request: Request) -> Response:
        content, media_type = self._metrics.render(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": media_type})

    async def tokenizer_info(self, _request: Request) -> Response:
        return json_response(tokenizer_info(self._front.service()))

    async def version(self, _request: Request) -> Response:
        return json_response({"version": ridgeline.__version__})

    async def openapi(self, _request: Request) -> Response:
        return Response(self._openapi, media_type="application/json")

    async def page(self, _request: Request) -> Response:
        return FileResponse(WEB / "index.html", headers=_PAGE_HEADERS)

    async def icon(self, _request: Request) -> Response:
        return FileResponse(WEB / "favicon.svg", headers=_PAGE_HEADERS)

    async def docs(self, _request: Request) -> Response:
        return FileResponse(WEB / "docs.html", headers=_PAGE_HEADERS)


def _model_object(service: Service) -> dict[str, object]:
    info = service.info
    return {
        "id": service.name,
        "object": "model",
        "created": service.created,
        "owned_by": "ridgeline",
        "root": service.root,
        "max_model_len": info.max_model_len,
        "ridgeline": {
            "dtype": info.dtype,
            "device": info.device,
            "batching": info.batching,
            "note": service.note,
        },
    }


def create_app(
    bring_up: BringUp,
    readiness: Readiness | None = None,
    restarts: Restarts | None = None,
    manners: Manners | None = None,
) -> Starlette:
    """The app; `app.state` has its Front as front and its Limits as limits. bring_up begins when the server listens.

    restarts: how an engine that dies is brought up again. Default: it is not.
    """
    manners = manners or Manners()
    books = manners.books()

    def ready(service: Service) -> None:
        books.metrics.watch(service)
        service.box.names = books.requests.names

    front = Front(bring_up, restarts, ready)
    turns = asyncio.Semaphore(_QUESTIONS_AT_ONCE)
    timeout_s = manners.limits.body_timeout_s
    routes, watching = Routes(front, readiness or Readiness(), books.metrics), Watching(front, books)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        front.start()
        try:
            yield
        finally:
            await front.stop()

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/", routes.page),
            Route("/v1/completions", Generation(front, parse_completion, CompletionShape()), methods=["POST"]),
            Route("/v1/chat/completions", Generation(front, parse_chat, ChatShape()), methods=["POST"]),
            Route("/tokenize", Question(front, tokenize, turns), methods=["POST"]),
            Route("/detokenize", Question(front, detokenize, turns), methods=["POST"]),
            Route("/tokenizer_info", routes.tokenizer_info),
            Route("/v1/profile", Profiles(front), methods=["GET", "POST"]),
            Route("/v1/requests", watching.requests),
            Route("/v1/requests/{id:path}", watching.request),
            Route("/v1/recording", watching.recording),
            Route("/v1/live", Pulse(front, Live(front, books))),
            Route("/version", routes.version),
            Route("/v1/models", routes.models),
            Route("/v1/models/{id:path}", routes.model),
            Route("/health", routes.health),
            Route("/ready", routes.ready),
            Route("/metrics", routes.metrics),
            Route("/openapi.json", routes.openapi),
            Route("/docs", routes.docs),
            Route("/favicon.svg", routes.icon),
            Mount("/docs/assets", StaticFiles(directory=_swagger_ui())),
            Mount("/assets", Assets()),
        ],
        exception_handlers={
            RidgelineError: answer_error,
            HTTPException: answer_http_error,
        },
        middleware=[Middleware(Gate, books, manners.keys, manners.admins, manners.doors, timeout_s)],
    )
    app.router.redirect_slashes = False
    app.state.front, app.state.limits = front, manners.limits
    return app


class Assets(StaticFiles):
    """The page's files, what it shares with saved reports, and the chart library as its own package brings it."""

    def __init__(self) -> None:
        super().__init__(directory=WEB, packages=[("ridgeline", "assets/look"), ("plotly", "package_data")])

    def file_response(
        self, full_path: PathLike, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Asked for again each time (it costs a 304), so that after an update no file of the old page stays."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _swagger_ui() -> Path:
    """Swagger UI's files, from the package that ships them (it is not imported: FastAPI would come with it)."""
    spec = importlib.util.find_spec("fastapi_offline")
    assert spec is not None, "fastapi-offline is a dependency"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "static"
