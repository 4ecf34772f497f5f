"""The application: which path is answered by whom. Knows routes; knows no engine internals and no socket.

`create_app(bring_up)` gives an ASGI app that answers from its first moment; see front.py for what bring_up is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from ridgeline.core.errors import NotFound, RidgelineError
from ridgeline.engine.supervisor import Restarts
from ridgeline.server.answers import Heading, encode_json
from ridgeline.server.completions import Answer
from ridgeline.server.errors import NotJson, TooLarge, answer_error, answer_http_error, json_response
from ridgeline.server.front import BringUp, Failed, Front, Starting
from ridgeline.server.gate import Gate
from ridgeline.server.manners import Manners
from ridgeline.server.metrics import Metrics
from ridgeline.server.openai import check_model, parse, prepare, text_size
from ridgeline.server.openapi import openapi
from ridgeline.server.readiness import Readiness
from ridgeline.server.service import Service
from ridgeline.server.visit import visit_of

MAX_BODY_BYTES = 4 * 2**20
# A longer body is refused; up to here it is read to its end first, so that the client sees the answer and no reset.
_DRAINED_BYTES = 16 * MAX_BODY_BYTES
_BIG_TEXT = 2**14  # characters; encoding more takes milliseconds, which belong in a thread

WEB = Path(__file__).parent / "web"
# Pages may talk to this server and to nobody else.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Completions:
    """POST /v1/completions, as an ASGI app of its own: it watches the connection while it answers."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, visit = Request(scope, receive), visit_of(scope)
        service, stopping = self._front.service(), self._front.stopping
        assert stopping is not None
        visit.books.admission.check()
        try:
            ask = parse(await _body(request), service.defaults)
        except ClientDisconnect:
            return
        visit.limit(ask.timeout_s)
        check_model(ask.model, service)
        visit.enter(ask.prompts, len(ask.prompts))
        if text_size(ask) > _BIG_TEXT:
            prompts = await asyncio.to_thread(prepare, ask, service)
        else:
            prompts = prepare(ask, service)
        visit.weigh([len(prompt.ids) for prompt in prompts])
        heading = Heading(f"cmpl-{uuid.uuid4().hex}", int(time.time()), service.name)
        await Answer(ask, prompts, service, heading, visit).respond(receive, send, stopping)


async def _body(request: Request) -> bytes:
    """Raises NotJson and TooLarge before it reads what it will not use."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        # Also what keeps foreign web pages out: a browser sends this type only to a server that invited the page.
        raise NotJson(f"the body is '{kind[:60]}'; send it with the header Content-Type: application/json")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        elif size > _DRAINED_BYTES:
            break
    if size > MAX_BODY_BYTES:
        raise TooLarge(f"the body is longer than {MAX_BODY_BYTES} bytes", code="body_too_large")
    return b"".join(parts)


class Routes:
    """The small answers."""

    def __init__(self, front: Front, readiness: Readiness, metrics: Metrics) -> None:
        self._front, self._readiness, self._metrics = front, readiness, metrics
        self._openapi = encode_json(openapi())

    async def models(self, _request: Request) -> Response:
        return json_response({"object": "list", "data": [_model_object(self._front.service())]})

    async def model(self, request: Request) -> Response:
        service, name = self._front.service(), request.path_params["id"]
        if name != service.name:
            raise NotFound(
                f"model '{name[:80]}' is not served here; this is '{service.name}'", "model", "model_not_found"
            )
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
        return json_response({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        content, media_type = self._metrics.render(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": media_type})

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
    front = Front(bring_up, restarts, books.metrics.watch)
    routes = Routes(front, readiness or Readiness(), books.metrics)

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
            Route("/v1/completions", Completions(front), methods=["POST"]),
            Route("/v1/models", routes.models),
            Route("/v1/models/{id:path}", routes.model),
            Route("/health", routes.health),
            Route("/ready", routes.ready),
            Route("/metrics", routes.metrics),
            Route("/openapi.json", routes.openapi),
            Route("/docs", routes.docs),
            Route("/favicon.svg", routes.icon),
            Mount("/docs/assets", StaticFiles(directory=_swagger_ui())),
        ],
        exception_handlers={
            RidgelineError: answer_error,
            HTTPException: answer_http_error,
        },
        middleware=[Middleware(Gate, books, manners.keys, manners.doors, manners.limits.body_timeout_s)],
    )
    app.router.redirect_slashes = False
    app.state.front, app.state.limits = front, manners.limits
    return app


def _swagger_ui() -> Path:
    """Swagger UI's files, from the package that ships them (it is not imported: FastAPI would come with it)."""
    spec = importlib.util.find_spec("fastapi_offline")
    assert spec is not None, "fastapi-offline is a dependency"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "static"
