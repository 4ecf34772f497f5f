"""Hundreds of requests that no client should send, made from the same tables of fields that the server reads.

    for case in cases(): ...     # each has a name, a route, a method, a body, a content type, what the answer must be

Knows the routes; knows no server. A case for a field must be answered with that field's name in the message.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ridgeline.server.fields import CHAT, COMPLETION, DETOKENIZE, IGNORED, PROFILE, TOKENIZE
from tests.server.live import MAX_LEN

JSON = "application/json"
COMPLETIONS, CHATS, PROFILES = "/v1/completions", "/v1/chat/completions", "/v1/profile"


@dataclass(frozen=True)
class Case:
    """status: of the answer. word: stands in its message. param: the field it names; None: any or none."""

    name: str
    path: str
    body: bytes
    word: str = ""
    param: str | None = None
    status: int = 400
    method: str = "POST"
    kind: str = JSON


TABLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    COMPLETIONS: (COMPLETION, {"prompt": "a"}),
    CHATS: (CHAT, {"messages": [{"role": "user", "content": "a"}]}),
    "/tokenize": (TOKENIZE, {"prompt": "a"}),
    "/detokenize": (DETOKENIZE, {"tokens": [1]}),
    PROFILES: (PROFILE, {"action": "stop"}),
}
# One value of each of JSON's kinds.
KINDS: dict[str, Any] = {
    "string": "five", "integer": 7, "number": 0.25, "boolean": True, "object": {"a": 1}, "array": [None],
}  # fmt: skip


def cases() -> list[Case]:
    return [*_wrong_types(), *_wrong_values(), *_wrong_messages(), *_wrong_bodies(), *_wrong_requests()]


def _wrong_types() -> Iterator[Case]:
    """Every field of every route with every kind of value that its schema excludes."""
    for path, (table, good) in TABLES.items():
        for name, field in table.items():
            if name in IGNORED:
                continue
            for kind, value in KINDS.items():
                if kind not in _kinds(field.schema):
                    body = json.dumps(good | {name: value}).encode()
                    yield Case(f"{path} {name}: {kind}", path, body, name, name)
        yield Case(f"{path} unknown", path, json.dumps(good | {"colour": 1}).encode(), "colour", "colour")
        if "model" in table:
            yield Case(f"{path} model", path, json.dumps(good | {"model": "gpt-9"}).encode(), "gpt-9", "model", 404)


def _kinds(schema: dict[str, Any]) -> set[str]:
    """JSON kinds that some value of the schema has."""
    if "oneOf" in schema:
        return set().union(*(_kinds(one) for one in schema["oneOf"]))
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    names = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}
    found = {names[type(value)] for value in values}
    kinds = schema.get("type", [])
    found |= {kinds} if isinstance(kinds, str) else set(kinds)
    return found | ({"integer"} if "number" in found else set())


_TOO: dict[str, list[Any]] = {
    "max_tokens": [-1, 10**9, 2**63, 2**64, 10**30, MAX_LEN, 1e3],
    "max_completion_tokens": [0, -1, 10**9, 10**30, MAX_LEN, 1e3],
    "min_tokens": [-1, 2**63, 10**30, 10**9],
    "temperature": [-0.1, 2.5, 1e308, 10**30, 10**400],
    "top_p": [0, -1, 1.5, 10**400],
    "top_k": [-2, 2**31, 2**64],
    "min_p": [-0.5, 1.5, 10**30],
    "presence_penalty": [-2.5, 2.5, 1e300],
    "frequency_penalty": [-2.5, 2.5, 1e300],
    "repetition_penalty": [0, -1, 10.5, 1e300],
    "logit_bias": [
        {"a": 1}, {"-1": 1}, {"1.5": 1}, {"": 1}, {" 1": 1}, {"257": 1}, {"9999999999": 1}, {"1": 101}, {"1": None},
        {"1": "2"}, {"1": [2]}, {"1": 1e300}, {"1": 1, "01": 2}, {str(i): 1 for i in range(2000)}, {"²": 1},
    ],
    "seed": [-1, 2**64, 10**30],
    "stop": [[""], "", ["x"] * 17, [1], [None], [["a"]], "x" * 5000],
    "stop_token_ids": [[-1], [257], [2**31], [10**30], [1.5], ["1"], [True], [None], [1] * 65],
    "n": [0, -1, 129, 10**30],
    "stream_options": [{"include_usages": True}, {"include_usage": 1}, {"include_usage": True}, {}],
    "cache_salt": ["x" * 1000],
    "priority": [1, -1, 10**30],
}  # fmt: skip
_COMPLETION_TOO: dict[str, list[Any]] = {
    "prompt": [
        "", [], [[]], [""], ["a", 1], ["a", ["b"]], ["a", [1]], [1, "a"], [True], [1.0], [[1], [2.5]], [257], [-1],
        [2**31],
        [10**30], [[1], []], [[1], [-1]], [[[1]]], [[None]], ["a"] * 65, "a" * MAX_LEN, "a" * 20_000, "a" * 10**6,
        ["a", "a" * MAX_LEN], [[1] * MAX_LEN], [1] * MAX_LEN, [1] * 300_000,
    ],
    "best_of": [0, -1, 129, 10**30],
    "logprobs": [-1, 21, 10**30],
    "suffix": [" and so on"],
}  # fmt: skip
_CHAT_TOO: dict[str, list[Any]] = {
    "top_logprobs": [0, 5, -1, 21, 10**30],
    "response_format": [{"type": "json_object"}, {"type": "json_schema", "json_schema": {}}, {}],
    "tools": [[{"type": "function", "function": {"name": "f"}}]],
    "functions": [[{"name": "f"}]],
    "tool_choice": ["required", {"type": "function"}],
    "function_call": [{"name": "f"}],
    "modalities": [["audio"], ["text", "audio"]],
    "audio": [{"voice": "a"}],
    "prediction": [{"type": "content", "content": "a"}],
    "web_search_options": [{}],
    "reasoning_effort": ["high"],
    "verbosity": ["high"],
}
_PROFILE_TOO: dict[str, list[Any]] = {
    "action": ["", "begin", "Start", "stop ", None],
    "max_seconds": [0, -1, 300.5, 1e308, 10**400, 1],
    "max_steps": [0, -1, 2001, 10**30, 1],
    "shapes": [True],
}
_TOGETHER: list[tuple[str, str, dict[str, Any]]] = [
    (COMPLETIONS, "best_of", {"n": 3, "best_of": 2}),
    (COMPLETIONS, "best_of", {"best_of": 2, "stream": True}),
    (COMPLETIONS, "n", {"prompt": ["a", "b"], "n": 65}),
    (COMPLETIONS, "best_of", {"prompt": ["a"] * 64, "best_of": 3}),
    (COMPLETIONS, "min_tokens", {"min_tokens": 5, "max_tokens": 4}),
    (COMPLETIONS, "min_tokens", {"min_tokens": 1, "max_tokens": 0}),
    (COMPLETIONS, "max_tokens", {"prompt": "a" * 200, "max_tokens": 100}),
    (COMPLETIONS, "stop_token_ids", {"stop_token_ids": [*range(64)]}),
    (COMPLETIONS, "include_usage", {"stream": True, "stream_options": {"continuous_usage_stats": True}}),
    (CHATS, "max_completion_tokens", {"max_tokens": 4, "max_completion_tokens": 5}),
    (CHATS, "messages", {"messages": [{"role": "user", "content": "a" * MAX_LEN}]}),
    (CHATS, "messages", {"messages": [{"role": "user", "content": "a" * 10**6}]}),
    (CHATS, "prompt", {"prompt": "a"}),
    (CHATS, "echo", {"echo": True}),
    (CHATS, "best_of", {"best_of": 1}),
    ("/tokenize", "prompt", {"messages": [{"role": "user", "content": "a"}]}),
    ("/tokenize", "prompt", {"prompt": None}),
    ("/tokenize", "add_generation_prompt", {"add_generation_prompt": True}),
    ("/detokenize", "tokens", {"tokens": [257]}),
    ("/detokenize", "tokens", {"tokens": [-1]}),
    ("/detokenize", "tokens", {"tokens": [10**30]}),
    ("/detokenize", "tokens", {"tokens": None}),
]


def _wrong_values() -> Iterator[Case]:
    routes = [(COMPLETIONS, _TOO | _COMPLETION_TOO), (CHATS, _TOO | _CHAT_TOO), (PROFILES, _PROFILE_TOO)]
    for path, values in routes:
        table, good = TABLES[path]
        for name, wrongs in values.items():
            for index, value in enumerate(wrongs if name in table else []):
                yield Case(f"{path} {name} #{index}", path, json.dumps(good | {name: value}).encode(), name)
    for index, (path, word, more) in enumerate(_TOGETHER):
        yield Case(f"{path} together #{index}", path, json.dumps(TABLES[path][1] | more).encode(), word)


def _wrong_messages() -> Iterator[Case]:
    user = {"role": "user", "content": "a"}
    picture = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}
    wrongs: list[tuple[str, Any]] = [
        ("messages", []), ("messages", [user] * 5000), ("messages[0]", ["a"]), ("messages[0]", [None]),
        ("messages[1]", [user, 5]), ("messages[0].role", [{}]), ("messages[0].role", [{"content": "a"}]),
        ("messages[0].role", [user | {"role": "king"}]), ("messages[0].role", [user | {"role": 1}]),
        ("messages[0].role", [user | {"role": "tool"}]), ("messages[0].role", [user | {"role": "x" * 10**5}]),
        ("messages[0].content", [{"role": "user"}]), ("messages[0].content", [user | {"content": None}]),
        ("messages[0].content", [user | {"content": 5}]), ("messages[0].content", [user | {"content": {}}]),
        ("messages[0].content", [user | {"content": []}]), ("messages[0].content[0]", [user | {"content": ["a"]}]),
        ("messages[0].content[0].type", [user | {"content": [{"text": "a"}]}]),
        ("messages[0].content[0].type", [user | {"content": [picture]}]),
        ("messages[0].content[0].type", [user | {"content": [{"type": "input_audio"}]}]),
        ("messages[0].content[0].text", [user | {"content": [{"type": "text"}]}]),
        ("messages[0].content[0].text", [user | {"content": [{"type": "text", "text": 1}]}]),
        ("messages[0].content[0].more", [user | {"content": [{"type": "text", "text": "a", "more": 1}]}]),
        ("messages[0].colour", [user | {"colour": "red"}]), ("messages[0].name", [user | {"name": 5}]),
        ("messages[0].tool_calls", [user | {"tool_calls": [{"id": "1"}]}]),
        ("messages[0].function_call", [user | {"function_call": {"name": "f"}}]),
        ("messages[0].audio", [user | {"audio": {"id": "1"}}]), ("messages[0].refusal", [user | {"refusal": "no"}]),
    ]  # fmt: skip
    for path in (CHATS, "/tokenize"):
        for index, (word, messages) in enumerate(wrongs):
            body = json.dumps({"messages": messages}).encode()
            yield Case(f"{path} messages #{index}", path, body, word, word)


def _wrong_bodies() -> Iterator[Case]:
    """What is no JSON object in UTF-8, or is too much of one."""
    good = {path: json.dumps(good).encode() for path, (_, good) in TABLES.items()}
    for path, body in good.items():
        broken = {
            "empty": b"", "half": body[:-1], "array": b"[]", "string": b'"a"', "null": b"null", "number": b"1",
            "more": body + b" x", "two": body + body, "single quotes": body.replace(b'"', b"'"),
            "NaN": body[:-1] + b', "temperature": NaN}', "Infinity": body[:-1] + b', "temperature": Infinity}',
            "-Infinity": body[:-1] + b', "min_p": -Infinity}', "1e999": body[:-1] + b', "temperature": 1e999}',
            "digits": body[:-1] + b', "seed": ' + b"9" * 5000 + b"}", "comment": body[:-1] + b" /* */}",
            "comma": body[:-1] + b",}", "byte": body[:-1] + b', "user": "\xff"}',
            "cut character": body[:-1] + b', "user": "\xe4\xb8"}', "overlong": body[:-1] + b', "user": "\xc0\xaf"}',
            "surrogate": body[:-1] + b', "user": "\\ud800"}', "low surrogate": body[:-1] + b', "user": "\\udc00 a"}',
            "raw surrogate": body[:-1] + b', "user": "\xed\xa0\x80"}', "control": body[:-1] + b', "user": "\n"}',
            "surrogate name": body[:-1] + b', "\\ud800": 1}', "utf-16": body.decode().encode("utf-16"),
            "deep": body[:-1] + b', "stop": ' + b"[" * 100_000, "deep objects": b'{"a":' * 100_000,
            "closed deep": body[:-1] + b', "stop": ' + b"[" * 5000 + b"]" * 5000 + b"}",
            "many names": b"{" + b",".join(b'"f%d": 1' % i for i in range(100_000)) + b"}",
        }  # fmt: skip
        for name, broken_body in broken.items():
            yield Case(f"{path} body: {name}", path, broken_body)
        yield Case(f"{path} twice", path, body[:-1] + b', "model": "recite", "model": "recite"}', "model", "model")
        escaped = b', "model": "recite", "logit_bias": {"1": 1, "1": 2}}'
        yield Case(f"{path} twice inside", path, body[:-1] + escaped, "1", "1")
        long = b'{"prompt": "' + b"a" * (10 * 2**20) + b'"}'
        yield Case(f"{path} 10 MB", path, long, "longer", status=413)


def _wrong_requests() -> Iterator[Case]:
    for path, (_, good) in TABLES.items():
        body = json.dumps(good).encode()
        for kind in ("text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data", "json", "ä/ö"):
            yield Case(f"{path} type {kind!r}", path, body, "application/json", status=415, kind=kind)
        for method in ("PUT", "DELETE", "PATCH", *(["GET"] if path != PROFILES else [])):
            yield Case(f"{method} {path}", path, b"", "POST", status=405, method=method)
        yield Case(f"{path}/", path + "/", body, path, status=404)
    for path in ("/v1/models", "/health", "/ready", "/version", "/tokenizer_info", "/openapi.json"):
        yield Case(f"POST {path}", path, b"{}", "GET", status=405)
    for path in ("/v1/completion", "/v1", "/v2/completions", "/%00", "/v1/models/other", "/v1/models/%ff", "/..%2f"):
        yield Case(f"GET {path}", path, b"", status=404, method="GET")
