"""FIELDS: every field a completion request may have: how it is read and what the documentation says about it.

One table, so that /openapi.json cannot say anything else than the parser does. Knows JSON values; knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.core.errors import BadRequest, did_you_mean
from ridgeline.core.params import MAX_SEED, MAX_STOPS, MAX_TOP_K, SamplingParams

MAX_PROMPTS = 64
MAX_TIMEOUT_S = 86_400
_INT_LIMIT = 2**64  # nothing here is larger, and messages should not quote a thousand digits

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """read(name, value) returns the value in our types or raises BadRequest naming the field."""

    read: Callable[[str, Any], Any]
    schema: Schema
    help: str


def wrong(name: str, expected: str, value: object) -> BadRequest:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    return BadRequest(f"{name}: expected {expected}, got {shown}", param=name, code="invalid_type")


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(name, "a string", value)
    return value


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong(name, "true or false", value)
    return value


def _integer(name: str, value: Any) -> int:
    if type(value) is not int:
        raise wrong(name, "an integer", value)
    if abs(value) >= _INT_LIMIT:
        raise BadRequest(f"{name}: out of range", param=name)
    return value


def _number(name: str, value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise wrong(name, "a number", value)
    return float(_integer(name, value))


def _seconds(name: str, value: Any) -> float:
    seconds = _number(name, value)
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise BadRequest(f"{name}: {seconds:g} is not above 0 and at most {MAX_TIMEOUT_S}", param=name)
    return seconds


def _top_k(name: str, value: Any) -> int:
    number = _integer(name, value)
    return 0 if number == -1 else number


def _stop(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise wrong(name, "a string or a list of strings", value)
    return tuple(value)


def _prompt(name: str, value: Any) -> tuple[str | list[int], ...]:
    """A string, a list of strings, of ids or of lists of ids; several prompts give several choices."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise wrong(name, "a string, a list of strings, a list of token ids or a list of such lists", value)
    if _are_ids(value):
        return (value,)
    if len(value) > MAX_PROMPTS:
        raise BadRequest(f"{name}: {len(value)} prompts; at most {MAX_PROMPTS} in one request", param=name)
    if not (all(isinstance(one, str) for one in value) or all(isinstance(one, list) for one in value)):
        raise wrong(name, "only strings, only token ids or only lists of token ids in the list", value)
    for index, one in enumerate(value):
        if isinstance(one, list) and not _are_ids(one):
            raise wrong(f"{name}[{index}]", "a list of token ids", one) from None
    return tuple(value)


def _are_ids(value: list[Any]) -> bool:
    return all(type(one) is int for one in value)


def _stream_options(name: str, value: Any) -> dict[str, bool]:
    known = ("include_usage",)
    if not isinstance(value, dict):
        raise wrong(name, "an object", value)
    for key in value:
        if key not in known:
            raise BadRequest(f"{name}.{key}: unknown field{did_you_mean(key, known)}", param=f"{name}.{key}")
    return {key: _boolean(f"{name}.{key}", one) for key, one in value.items() if one is not None}


def _only(*accepted: Any) -> Callable[[str, Any], None]:
    """For what is not implemented: the values that ask for nothing are accepted."""

    def read(name: str, value: Any) -> None:
        # True == 1, and an echo of 1 is not an echo of true.
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in accepted):
            raise BadRequest(
                f"{name}: not implemented yet; leave it out or null", param=name, code="unsupported_parameter"
            )

    return read


def _anything(name: str, value: Any) -> None:
    """Accepted, and named in the response header: it can never change the output."""


_STRINGS: Schema = {"type": "array", "items": {"type": "string"}}
_IDS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_PROMPT: Schema = {
    "oneOf": [
        {"type": "string", "title": "text"},
        _STRINGS | {"title": "several texts", "minItems": 1, "maxItems": MAX_PROMPTS},
        _IDS | {"title": "token ids"},
        {"type": "array", "title": "several lists of token ids", "items": _IDS, "minItems": 1, "maxItems": MAX_PROMPTS},
    ]
}
_STOP: Schema = {"oneOf": [{"type": "string"}, _STRINGS | {"maxItems": MAX_STOPS}]}
_STREAM_OPTIONS: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "include_usage": {
            "type": "boolean",
            "default": False,
            "description": "Send one more chunk at the end, with `usage` and no choice.",
        }
    },
}

FIELDS: dict[str, Field] = {
    "model": Field(_string, {"type": "string"}, "Which model; may be left out, as one is served."),
    "prompt": Field(
        _prompt,
        _PROMPT,
        "What to continue: text, token ids, or a list of either; a list gives that many choices, in its order.",
    ),
    "max_tokens": Field(
        _integer,
        {"type": "integer", "minimum": 1, "default": 16},
        "New tokens at most. Prompt and new tokens together must fit the model's `max_model_len`.",
    ),
    "min_tokens": Field(
        _integer, {"type": "integer", "minimum": 0, "default": 0}, "The model's own end is not chosen before that many."
    ),
    "temperature": Field(
        _number,
        {"type": "number", "minimum": 0, "maximum": 2},
        "0 always takes the likeliest token; the higher, the freer. Default: the model's own, otherwise 1.",
    ),
    "top_p": Field(
        _number,
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "Choose among the likeliest tokens that together have this probability; 1 is off.",
    ),
    "top_k": Field(
        _top_k,
        {"type": "integer", "minimum": -1, "maximum": MAX_TOP_K},
        "Choose among that many of the likeliest; 0 or -1 is off.",
    ),
    "seed": Field(
        _integer,
        {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
        "Same seed, same tokens, whatever else the server does. Every prompt of a list uses it as if it came alone.",
    ),
    "stop": Field(_stop, _STOP, f"Up to {MAX_STOPS} strings that end the text and are not part of it."),
    "stream": Field(
        _boolean, {"type": "boolean", "default": False}, "Send the text as it is made, as server-sent events."
    ),
    "stream_options": Field(_stream_options, _STREAM_OPTIONS, "Only with `stream`."),
    "ignore_eos": Field(_boolean, {"type": "boolean", "default": False}, "Go on past the model's own end."),
    "return_token_ids": Field(
        _boolean,
        {"type": "boolean", "default": False},
        "Add `token_ids` and `prompt_token_ids` to the choices. In a stream the latter come with the first chunk.",
    ),
    "timings": Field(
        _boolean,
        {"type": "boolean", "default": False},
        "Add to each choice where its time went: waiting, prefill, decode, and the batch it was in.",
    ),
    "timeout_s": Field(
        _seconds,
        {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S},
        "Seconds from the request's arrival; then it is ended, with 408 or, in a stream, an error event.",
    ),
    "n": Field(_only(1), {"const": 1}, "Only 1 for now; send the prompt several times in a list instead."),
    "best_of": Field(_only(1), {"const": 1}, "Not implemented yet: only 1."),
    "echo": Field(_only(False), {"const": False}, "Not implemented yet: only false."),
    "logprobs": Field(_only(), {"type": "null"}, "Not implemented yet: only null."),
    "suffix": Field(_only(""), {"const": ""}, "Not implemented yet: only an empty string."),
    "presence_penalty": Field(_only(0), {"const": 0}, "Not implemented yet: only 0."),
    "frequency_penalty": Field(_only(0), {"const": 0}, "Not implemented yet: only 0."),
    "repetition_penalty": Field(_only(1), {"const": 1}, "Not implemented yet: only 1."),
    "logit_bias": Field(_only({}), {"type": "object", "maxProperties": 0}, "Not implemented yet: only empty."),
    "min_p": Field(_only(0), {"const": 0}, "Not implemented yet: only 0."),
    "stop_token_ids": Field(_only([]), {"type": "array", "maxItems": 0}, "Not implemented yet: only empty."),
}

_NO_EFFECT = "Accepted; changes nothing, and is named in the response header `x-ridgeline-ignored`."
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier")
FIELDS |= {name: Field(_anything, {}, _NO_EFFECT) for name in IGNORED}

SAMPLING = tuple(name for name in FIELDS if name in SamplingParams.__dataclass_fields__)


def read_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Every field that is there and not null, read. Raises BadRequest for the first that is wrong or unknown."""
    for name in values:
        if name not in FIELDS:
            near = did_you_mean(name, FIELDS)
            shown = name if len(name) <= 40 else name[:37] + "..."
            raise BadRequest(f"{shown}: unknown field{near}", param=shown, code="unknown_parameter")
    return {name: FIELDS[name].read(name, value) for name, value in values.items() if value is not None}
