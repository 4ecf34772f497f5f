"""A conversation as a client sends it -> what a chat template takes. Knows JSON values, no template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ridgeline.core.errors import BadRequest
from ridgeline.server.readers import brief, check_known, string, wrong

ROLES = ("system", "developer", "user", "assistant")
_CALLS = ("tool_calls", "function_call", "tool_call_id", "audio")
_KNOWN = dict.fromkeys(("role", "content", "name", "refusal", *_CALLS))
MAX_MESSAGES = 4096

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages with a role, a content that is a string, and sometimes a name. closed: the answer is not begun."""

    messages: tuple[Json, ...]
    closed: bool = False


def read_messages(name: str, value: Any) -> Conversation:
    if not isinstance(value, list):
        raise wrong(name, "a list of messages", value)
    if not 1 <= len(value) <= MAX_MESSAGES:
        raise BadRequest(f"{name}: {len(value)} messages; from 1 to {MAX_MESSAGES} are possible", param=name)
    return Conversation(tuple(_message(f"{name}[{index}]", one) for index, one in enumerate(value)))


def _message(name: str, value: Any) -> Json:
    if not isinstance(value, dict):
        raise wrong(name, "an object", value)
    for key in value:
        check_known(name, key, _KNOWN)
    for key in (*_CALLS, "refusal"):
        if value.get(key) is not None and not (key == "tool_calls" and value[key] == []):
            raise _unsupported(f"{name}.{key}")
    role = string(f"{name}.role", value.get("role"))
    if role in ("tool", "function"):
        raise _unsupported(f"{name}.role: '{role}'", f"{name}.role")
    if role not in ROLES:
        raise BadRequest(
            f"{name}.role: '{brief(role)}' is none of {', '.join(ROLES)}", param=f"{name}.role", code="invalid_value"
        )
    message = {"role": role, "content": _content(f"{name}.content", value.get("content"))}
    if value.get("name") is not None:
        message["name"] = string(f"{name}.name", value["name"])
    return message


def _content(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise wrong(name, "a string or a list of text parts", value)
    return "".join(_part(f"{name}[{index}]", one) for index, one in enumerate(value))


def _part(name: str, value: Any) -> str:
    if not isinstance(value, dict):
        raise wrong(name, "an object with type and text", value)
    kind = string(f"{name}.type", value.get("type"))
    if kind != "text":
        raise _unsupported(f"{name}.type: '{brief(kind)}'", f"{name}.type")
    for key in value:
        check_known(name, key, {"type": None, "text": None})
    return string(f"{name}.text", value.get("text"))


def _unsupported(what: str, param: str | None = None) -> BadRequest:
    message = f"{what}: not implemented; only text messages are"
    return BadRequest(message, param=param or what, code="unsupported_parameter")


_TEXT: Json = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
    "additionalProperties": False,
}
MESSAGES_SCHEMA: Json = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_MESSAGES,
    "items": {
        "type": "object",
        "properties": {
            "role": {"enum": list(ROLES)},
            "content": {"oneOf": [{"type": "string"}, {"type": "array", "items": _TEXT, "minItems": 1}]},
            "name": {"type": ["string", "null"]},
            "refusal": {"type": "null"},
            **{name: {"type": "null"} for name in _CALLS},
            "tool_calls": {"type": ["array", "null"], "maxItems": 0},
        },
        "required": ["role", "content"],
        "additionalProperties": False,
    },
}
