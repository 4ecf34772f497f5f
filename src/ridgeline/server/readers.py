"""Readers: one JSON value -> one value in our types, or BadRequest naming the field. Knows no table and no model.

A reader is `read(name, value)`; value is not null.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from ridgeline.core.errors import BadRequest, did_you_mean
from ridgeline.core.types import MAX_LOGIT_BIAS

Read = Callable[[str, Any], Any]

MAX_PROMPTS = 64
MAX_TIMEOUT_S = 86_400
MAX_NAME_CHARS = 256  # of names and salts, which are compared and never computed with
MAX_STOP_CHARS = 1024  # every character of a stop string is a state of an automaton
_INT_LIMIT = 2**64  # nothing here is larger, and messages should not quote a thousand digits


def wrong(name: str, expected: str, value: object) -> BadRequest:
    shown = reprlib.repr(value)  # of a large value it writes only the beginning
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    return BadRequest(f"{name}: expected {expected}, got {shown}", param=name, code="invalid_type")


def brief(text: str, most: int = 40) -> str:
    """A client's word, fit for a message and a header: printable ASCII, not longer than that."""
    shown = ascii(text[: most + 1])[1:-1]
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(name, "a string", value)
    return value


def short_string(name: str, value: Any) -> str:
    if len(string(name, value)) > MAX_NAME_CHARS:
        raise BadRequest(f"{name}: longer than {MAX_NAME_CHARS} characters", param=name)
    return str(value)


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong(name, "true or false", value)
    return value


def integer(name: str, value: Any) -> int:
    if type(value) is not int:
        raise wrong(name, "an integer", value)
    if abs(value) >= _INT_LIMIT:
        raise BadRequest(f"{name}: out of range", param=name)
    return value


def number(name: str, value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise wrong(name, "a number", value)
    return float(integer(name, value))


def seconds_up_to(most: float) -> Read:
    def read(name: str, value: Any) -> float:
        given = number(name, value)
        if not 0 < given <= most:
            raise BadRequest(f"{name}: {given:g} is not above 0 and at most {most:g}", param=name)
        return given

    return read


seconds = seconds_up_to(MAX_TIMEOUT_S)


def between(low: int, high: int) -> Read:
    def read(name: str, value: Any) -> int:
        if not low <= integer(name, value) <= high:
            raise BadRequest(f"{name}: {value} is not from {low} to {high}", param=name)
        return int(value)

    return read


def top_k(name: str, value: Any) -> int:
    read = integer(name, value)
    return 0 if read == -1 else read


def stop(name: str, value: Any) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else value
    if not isinstance(stops, list | tuple) or not all(isinstance(one, str) for one in stops):
        raise wrong(name, "a string or a list of strings", value)
    if any(len(one) > MAX_STOP_CHARS for one in stops):
        raise BadRequest(f"{name}: a string is longer than {MAX_STOP_CHARS} characters", param=name)
    return tuple(stops)


def ids(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not are_ids(value):
        raise wrong(name, "a list of token ids", value)
    return tuple(value)


def are_ids(value: list[Any]) -> bool:
    return all(type(one) is int for one in value)


def logit_bias(name: str, value: Any) -> tuple[tuple[int, float], ...]:
    """OpenAI's object of token ids, as JSON's keys are strings: {"50256": -100}."""
    if not isinstance(value, dict):
        raise wrong(name, "an object of token ids and numbers", value)
    if len(value) > MAX_LOGIT_BIAS:
        raise BadRequest(f"{name}: {len(value)} tokens; at most {MAX_LOGIT_BIAS} are possible", param=name)
    pairs = []
    for key, bias in value.items():
        if re.fullmatch(r"[0-9]{1,10}", key) is None:
            raise BadRequest(f"{name}: '{brief(key)}' is not a token id", param=name, code="invalid_type")
        pairs.append((int(key), number(name, bias)))
    return tuple(pairs)


def prompt(name: str, value: Any) -> tuple[str | list[int], ...]:
    """A string, a list of strings, of ids or of lists of ids; several prompts give several choices."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise wrong(name, "a string, a list of strings, a list of token ids or a list of such lists", value)
    if are_ids(value):
        return (value,)
    if len(value) > MAX_PROMPTS:
        raise BadRequest(f"{name}: {len(value)} prompts; at most {MAX_PROMPTS} in one request", param=name)
    if not (all(isinstance(one, str) for one in value) or all(isinstance(one, list) for one in value)):
        raise wrong(name, "only strings, only token ids or only lists of token ids in the list", value)
    for index, one in enumerate(value):
        if isinstance(one, list) and not are_ids(one):
            raise wrong(f"{name}[{index}]", "a list of token ids", one)
    return tuple(value)


def record(**readers: Read) -> Read:
    """An object with these fields and no others; null fields are left out."""

    def read(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise wrong(name, "an object", value)
        for key in value:
            check_known(name, key, readers)
        return {key: readers[key](f"{name}.{key}", one) for key, one in value.items() if one is not None}

    return read


def check_known(name: str, key: str, known: Mapping[str, object]) -> None:
    """name: of the object that has the key."""
    if key not in known:
        shown = f"{name}.{brief(key)}"
        raise BadRequest(
            f"{shown}: unknown field{did_you_mean(key[:40], known)}", param=shown, code="unknown_parameter"
        )


def only(*accepted: Any) -> Read:
    """For what is not implemented: the values that ask for nothing are accepted."""

    def read(name: str, value: Any) -> None:
        # True == 1, and an echo of 1 is not an echo of true.
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in accepted):
            raise BadRequest(f"{name}: not implemented; leave it out or null", param=name, code="unsupported_parameter")

    return read


def one_of(*words: str) -> Read:
    def read(name: str, value: Any) -> str:
        if string(name, value) not in words:
            near = did_you_mean(value[:40], words)
            raise BadRequest(f"{name}: '{brief(value)}' is not one of {', '.join(words)}{near}", param=name)
        return str(value)

    return read


def anything(name: str, value: Any) -> None:
    """Accepted, and named in the response header: it can never change the output."""
