"""A request's body: read within bounds, and decoded strictly. Knows HTTP's body and JSON; knows no field."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
from starlette.requests import Request

from ridgeline.core.errors import BadRequest
from ridgeline.server.errors import NotJson, TooLarge
from ridgeline.server.readers import brief

MAX_BODY_BYTES = 4 * 2**20
# A longer body is refused; up to here it is read to its end first, so that the client sees the answer and no reset.
_DRAINED_BYTES = 16 * MAX_BODY_BYTES
_MANY_FIELDS = 64  # no request has as many; to look for each of them in the body would take too long

_decode = msgspec.json.Decoder().decode


async def read_body(request: Request) -> bytes:
    """Raises NotJson and TooLarge before it keeps what it will not use, and ClientDisconnect."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        # Also what keeps foreign web pages out: a browser sends this type only to a server that invited the page.
        raise NotJson(f"the body is '{brief(kind, 60)}'; send it with the header Content-Type: application/json")
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


def json_object(body: bytes) -> dict[str, Any]:
    """Raises BadRequest for what is no JSON object, no Unicode, or says something twice."""
    try:
        values = _decode(body)
        if not isinstance(values, dict):
            raise BadRequest("the body must be a JSON object", code="invalid_json")
        if _may_repeat(body, values):
            json.loads(body, object_pairs_hook=_once)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        if b"\\u" in body:
            reason += " (or half of a surrogate pair stands in it)"
        raise BadRequest(f"the body is not valid JSON in UTF-8: {reason}", code="invalid_json") from None
    return values


def _may_repeat(body: bytes, values: dict[str, Any]) -> bool:
    """A second decoder is asked only if a name stands in the body more than once, or there are objects in it."""
    if len(values) > _MANY_FIELDS or body.count(b"{") > 1:
        return True
    return any(body.count(b'"%s"' % name.encode()) != 1 for name in values)


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        twice = brief(Counter(name for name, _ in pairs).most_common(1)[0][0])
        raise BadRequest(f"{twice}: stands in the same object twice", param=twice, code="invalid_json")
