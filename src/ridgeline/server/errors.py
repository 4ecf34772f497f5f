"""Errors as HTTP answers: OpenAI's object, the right status, and words for who must act. Knows no completion."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ridgeline.core.errors import BadRequest, NotFound, RidgelineError, Stopping, Unavailable, did_you_mean
from ridgeline.server.answers import encode_json, error_object


class TooLarge(BadRequest):
    """The client must act: the body is longer than the server reads."""


class NotJson(BadRequest):
    """The client must act: the body says that it is something else than JSON."""


_STATUS: tuple[tuple[type[RidgelineError], int], ...] = (
    (TooLarge, 413),
    (NotJson, 415),
    (NotFound, 404),
    (BadRequest, 400),
    (Unavailable, 503),
)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode_json(content), status, headers, media_type="application/json")


def error_content(error: RidgelineError) -> dict[str, Any]:
    if isinstance(error, BadRequest):
        return error_object(str(error), "invalid_request_error", error.param, error.code)
    return error_object(str(error), "service_unavailable")


async def answer_error(_request: Request, error: Exception) -> Response:
    """For errors that are raised on purpose."""
    assert isinstance(error, RidgelineError)
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    return json_response(error_content(error), status, _headers(error))


def _headers(error: RidgelineError) -> dict[str, str]:
    if not isinstance(error, Unavailable):
        return {}
    return {"Retry-After": str(error.retry_after_s)} | ({"Connection": "close"} if isinstance(error, Stopping) else {})


async def answer_http_error(request: Request, error: Exception) -> Response:
    """For the router's own: no such route, or not with this method."""
    assert isinstance(error, HTTPException)
    path, headers = request.url.path[:80], dict(error.headers or {})
    if error.status_code == 405:
        message = f"{request.method} is not allowed on {path}; use {headers.get('Allow', 'another method')}"
        code = "method_not_allowed"
    else:
        known = {route.path for route in request.app.routes if hasattr(route, "path")}
        message, code = f"{path}: no such route{did_you_mean(path, known)}", "not_found"
    return json_response(error_object(message, "invalid_request_error", code=code), error.status_code, headers)


async def answer_defect(_request: Request, _error: Exception) -> Response:
    """For our own mistakes: the server's log has the traceback, the client gets no internals."""
    message = "a defect in the server; its log has the details"
    return json_response(error_object(message, "server_error", code="internal_error"), 500)
