"""Errors as HTTP answers: OpenAI's object, the right status, and words for who must act. Knows no completion."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ridgeline.core.errors import (
    BadRequest,
    NotFound,
    Overloaded,
    RidgelineError,
    Stopping,
    TimedOut,
    Unavailable,
    did_you_mean,
)
from ridgeline.server.answers import encode_json, error_object
from ridgeline.server.visit import visit_of


class TooLarge(BadRequest):
    """The client must act: the body is longer than the server reads."""


class NotJson(BadRequest):
    """The client must act: the body says that it is something else than JSON."""


class Unauthorized(BadRequest):
    """The client must act: the server has keys, and this is none of them. for_admins: the route is an operator's."""

    def __init__(self, given: bool, for_admins: bool) -> None:
        missing = "this route needs an admin key" if for_admins else "this server needs an API key"
        what = "this key is not one of this server's" if given else missing
        super().__init__(f"{what}; send the header Authorization: Bearer KEY", code="invalid_api_key")


class Forbidden(BadRequest):
    """The client must act: only the operator may do this. possible: there are admin keys."""

    def __init__(self, possible: bool) -> None:
        what = "this route needs an admin key"
        if not possible:
            what += ", and this server has none; start it with RIDGELINE_ADMIN_KEYS or --admin-key-file"
        super().__init__(f"{what}; send the header Authorization: Bearer KEY", code="admin_key_required")


class OnlyHere(BadRequest):
    """The client must act: without keys nobody can tell who asks, so only this machine itself may."""

    def __init__(self) -> None:
        super().__init__(
            "this server has no keys, so this route answers only to its own machine, asked for as localhost; start it "
            "with RIDGELINE_ADMIN_KEYS or --admin-key-file, and send the header Authorization: Bearer KEY",
            code="admin_key_required",
        )


class Conflict(BadRequest):
    """The client must act: not now, as things stand."""


_STATUS: tuple[tuple[type[RidgelineError], int], ...] = (
    (Unauthorized, 401),
    (Forbidden, 403),
    (OnlyHere, 403),
    (Conflict, 409),
    (TooLarge, 413),
    (NotJson, 415),
    (NotFound, 404),
    (BadRequest, 400),
    (TimedOut, 408),
    (Overloaded, 429),
    (Unavailable, 503),
)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode_json(content), status, headers, media_type="application/json")


def error_content(error: RidgelineError) -> dict[str, Any]:
    if isinstance(error, BadRequest):
        return error_object(str(error), "invalid_request_error", error.param, error.code)
    if isinstance(error, Overloaded):
        return error_object(str(error), error.kind, code="rate_limit_exceeded")
    if isinstance(error, TimedOut):
        return error_object(str(error), "timeout_error", code=error.code)
    return error_object(str(error), "service_unavailable")


async def answer_error(request: Request, error: Exception) -> Response:
    """For errors that are raised on purpose."""
    assert isinstance(error, RidgelineError)
    visit_of(request.scope).failed(error)
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    return json_response(error_content(error), status, _headers(error, status))


def _headers(error: RidgelineError, status: int) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, TimedOut):
        # Clients retry a 408 by themselves, though the same request would take as long again. And what is left of a
        # body that did not come in time must not be read as the next request.
        return {"x-should-retry": "false"} | ({"Connection": "close"} if error.code == "body_timeout" else {})
    if isinstance(error, Unavailable):
        close = {"Connection": "close"} if isinstance(error, Stopping) else {}
        return {"Retry-After": str(error.retry_after_s)} | close
    return {}


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
    visit_of(request.scope).error = code
    return json_response(error_object(message, "invalid_request_error", code=code), error.status_code, headers)


def defect() -> Response:
    """For our own mistakes: the server's log has the traceback, the client gets no internals."""
    message = "a defect in the server; its log has the details"
    return json_response(error_object(message, "server_error", code="internal_error"), 500)
