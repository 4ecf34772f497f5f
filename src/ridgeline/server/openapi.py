"""The OpenAPI document: every route with every status that it can answer.

The request's half is made from the tables of fields. Knows the shapes of answers; makes none.
"""

from __future__ import annotations

from typing import Any

import ridgeline
from ridgeline.server.fields import CHAT, COMPLETION, DETOKENIZE, PROFILE, TOKENIZE, Fields
from ridgeline.server.schemas import (
    ANSWERS,
    INTEGER,
    NOT_READY,
    STRING,
    TOKENIZER,
    TOKENS,
    Json,
    record,
    ref,
)
from ridgeline.server.shown import SHOWN
from ridgeline.server.watching import DEFAULT_STEPS, MOST_STEPS

_RETRY_AFTER = {"Retry-After": {"schema": INTEGER, "description": "Seconds."}}
_IGNORED = {"x-ridgeline-ignored": {"schema": STRING, "description": "Fields that were accepted and changed nothing."}}


def _json(description: str, schema: Json, headers: Json | None = None) -> Json:
    answer: Json = {"description": description, "content": {"application/json": {"schema": schema}}}
    return answer | ({"headers": headers} if headers else {})


def _error(description: str, headers: Json | None = None) -> Json:
    return _json(description, ref("Error"), headers)


_UNAVAILABLE = _error("The server is starting or stopping, or its engine has ended.", _RETRY_AFTER)
_UNAUTHORIZED = _error("The server has API keys, and none of them was sent.")
_DEFECT = _error("A defect in the server.")


def _get(tag: str, summary: str, responses: Json, **more: Any) -> Json:
    return {"get": {"tags": [tag], "summary": summary, "responses": responses, **more}}


_REFUSED = {
    "401": _UNAUTHORIZED,
    "408": _error("The time that the request was allowed has passed, or its body did not come in time."),
    "400": _error("A field is wrong, unknown or not implemented; `param` names it."),
    "404": _error("The model is not served here."),
    "413": _error("The body is too long."),
    "415": _error("The body is not declared as JSON."),
    "429": _error("As much as the server takes is waiting already.", _RETRY_AFTER),
    "500": _DEFECT,
    "503": _UNAVAILABLE,
}


def _post(tag: str, summary: str, request: str, done: Json, **more: Any) -> Json:
    body = {"required": True, "content": {"application/json": {"schema": ref(request)}}}
    responses = {"200": done, **_REFUSED}
    return {"post": {"tags": [tag], "summary": summary, "requestBody": body, "responses": responses, **more}}


def _generation(summary: str, request: str, answer: str) -> Json:
    # Without a type: for readers of the document it is a string, for some validators each event is an object.
    events = {"schema": {"description": "Events `data: {a chunk}`, then `data: [DONE]`."}}
    done = _json("The answer, or its events if `stream` is true.", ref(answer), _IGNORED)
    done["content"]["text/event-stream"] = events
    return _post(
        "Generation",
        summary,
        request,
        done,
        description="An error after a stream has begun is an event with the error object; then the stream ends. "
        "Closing the connection ends the generation.",
    )


def _tokens_paths() -> Json:
    text = record({"prompt": STRING})
    return {
        "/tokenize": _post("Tokens", "Text to ids", "TokenizeRequest", _json("The ids.", TOKENS, _IGNORED)),
        "/detokenize": _post("Tokens", "Ids to text", "DetokenizeRequest", _json("The text.", text, _IGNORED)),
        "/tokenizer_info": _get(
            "Tokens",
            "Special tokens and the chat template",
            {"200": _json("The tokenizer.", TOKENIZER), "401": _UNAUTHORIZED, "500": _DEFECT, "503": _UNAVAILABLE},
        ),
    }


def _profile_paths() -> Json:
    refused = {
        "401": _UNAUTHORIZED,
        "403": _error("The key is no admin key, or the server has none: RIDGELINE_ADMIN_KEYS, --admin-key-file."),
        "500": _DEFECT,
        "503": _UNAVAILABLE,
    }
    state = _json("How it stands.", ref("ProfileState"))
    done = _json("start: how it stands. stop: the trace.", {"oneOf": [ref("ProfileState"), ref("ProfileTrace")]})
    path = _post("Operation", "Begin or end a trace of the engine", "ProfileRequest", done, security=[{"key": []}])
    statuses = path["post"]["responses"]
    del statuses["404"], statuses["429"]
    statuses |= refused | {"409": _error("A profile is running already, or none is.")}
    about = "For operators: it needs an admin key. While a trace is written the engine makes no step."
    path["post"]["description"] = about
    got = _get("Operation", "Is a trace under way?", {"200": state, **refused}, security=[{"key": []}])
    return {"/v1/profile": path | got}


_FORBIDDEN = _error("The key is no admin key. Without keys: it came from another machine.")


def _watch_paths() -> Json:
    listed = record({"object": {"const": "list"}, "data": {"type": "array", "items": ref("RequestEntry")}})
    refused = {"401": _UNAUTHORIZED, "403": _FORBIDDEN, "500": _DEFECT}
    own = "With a key its own requests; with an admin key, or without keys on the server's own machine, everybody's. "
    live: Json = {
        "description": "An object twice a second, as `data: {...}`, until the server drains.",
        "content": {"text/event-stream": {"schema": {"description": "Each event's data is a `Live`."}}},
    }
    id = [{"name": "id", "in": "path", "required": True, "schema": STRING}]
    steps = {"type": "integer", "minimum": 1, "maximum": MOST_STEPS, "default": DEFAULT_STEPS}
    newest = [{"name": "steps", "in": "query", "schema": steps, "description": "As many of the newest."}]
    recording = _json("The engine's newest steps.", ref("Recording"), {"Content-Disposition": {"schema": STRING}})
    return {
        "/v1/requests": _get(
            "Watching",
            "The newest requests",
            {"200": _json("The newest first; 1000 are kept.", listed), **refused},
            description=own,
        ),
        "/v1/requests/{id}": _get(
            "Watching",
            "Where the time of a request went",
            {
                "200": _json("It.", ref("RequestDetail")),
                **refused,
                "404": _error("No such request of yours, or it was forgotten."),
            },
            parameters=id,
            description=own + "The id is that of the answer, or the header x-request-id.",
        ),
        "/v1/recording": _get(
            "Watching",
            "What the engine did lately, step by step",
            {
                "200": recording,
                **refused,
                "400": _error("steps is no such number."),
                "404": _error("Nothing is recorded: the server runs with --recorder off."),
                "503": _UNAVAILABLE,
            },
            parameters=newest,
            description="For operators: it needs an admin key; without keys it answers to the server's own machine.",
        ),
        "/v1/live": _get(
            "Watching",
            "The server's pulse",
            {
                "200": live,
                **refused,
                "429": _error("As many as the server takes are watching already.", _RETRY_AFTER),
                "503": _UNAVAILABLE,
            },
            description=own,
        ),
    }


def _nullable(schema: Json) -> Json:
    """The same, or null: as if the field were left out."""
    if "type" in schema:
        types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        return {**schema, "type": sorted({*types, "null"})}
    if "const" in schema or "enum" in schema:
        return {"enum": [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ()), None]}
    return {**schema, "oneOf": [*schema["oneOf"], {"type": "null"}]} if "oneOf" in schema else schema


def _request(table: Fields, example: Json, required: str = "") -> Json:
    properties = {
        name: {**(field.schema if name in required.split() else _nullable(field.schema)), "description": field.help}
        for name, field in table.items()
    }
    return record(properties, required, additionalProperties=False, example=example)


def _requests() -> Json:
    """The request's half of the schemas."""
    completion = {"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0.8, "seed": 1}
    chat = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_completion_tokens": 32, "seed": 1}
    # Either a prompt or messages; null is as absent.
    either: Json = {
        "oneOf": [
            {"required": [name], "properties": {name: {"not": {"type": "null"}}, other: {"type": "null"}}}
            for name, other in (("prompt", "messages"), ("messages", "prompt"))
        ]
    }
    return {
        "CompletionRequest": _request(COMPLETION, completion, "prompt"),
        "ChatRequest": _request(CHAT, chat, "messages"),
        "TokenizeRequest": _request(TOKENIZE, {"prompt": "Once upon a time"}) | either,
        "ProfileRequest": _request(PROFILE, {"action": "start", "max_seconds": 10}, "action"),
        "DetokenizeRequest": _request(DETOKENIZE, {"tokens": [72, 105]}, "tokens"),
    }


def openapi() -> Json:
    """The document, OpenAPI 3.1. Paths that do not exist answer 404, other methods 405, with the Error object."""
    name = [{"name": "id", "in": "path", "required": True, "schema": STRING}]
    models = record({"object": {"const": "list"}, "data": {"type": "array", "items": ref("Model")}})
    status = record({"status": STRING})
    ready = record({"status": STRING, "beside": STRING}, "status")
    found = {
        "200": _json("The model.", ref("Model")),
        "401": _UNAUTHORIZED,
        "404": _error("No such model."),
        "500": _DEFECT,
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ridgeline",
            "version": ridgeline.__version__,
            "description": "An OpenAI-compatible server. Errors are OpenAI's error object; unknown paths answer 404 "
            "and wrong methods 405, with the same object. So does every route where the connection itself is at "
            "fault, and then it is closed: 400 for what is no HTTP/1.1, 408 for a head that does not come in time, "
            "431 for one that is too long, 503 for one connection too many.",
        },
        "paths": {
            "/v1/completions": _generation("Continue a prompt", "CompletionRequest", "Completion"),
            "/v1/chat/completions": _generation("Answer in a conversation", "ChatRequest", "ChatCompletion"),
            **_tokens_paths(),
            **_profile_paths(),
            **_watch_paths(),
            "/v1/models": _get(
                "Models",
                "The model served",
                {"200": _json("A list of one.", models), "401": _UNAUTHORIZED, "500": _DEFECT, "503": _UNAVAILABLE},
            ),
            "/v1/models/{id}": _get("Models", "One model", found | {"503": _UNAVAILABLE}, parameters=name),
            "/version": _get(
                "State", "What runs here", {"200": _json("It.", record({"version": STRING})), "401": _UNAUTHORIZED}
            ),
            "/health": _get("State", "Does the process answer?", {"200": _json("It does.", status)}),
            "/ready": _get(
                "State",
                "Does the engine make progress?",
                {
                    "200": _json("It made a step in the last ten seconds, or answered just now.", ready),
                    "401": _UNAUTHORIZED,
                    "500": _DEFECT,
                    "503": _json("Not now: starting, restoring, draining, failed or stalled.", NOT_READY, _RETRY_AFTER),
                },
            ),
            "/metrics": _get(
                "State",
                "Counters and histograms for Prometheus",
                {
                    "200": {
                        "description": "docs/metrics.md lists them.",
                        "content": {"text/plain": {"schema": STRING}},
                    },
                    "401": _UNAUTHORIZED,
                    "500": _DEFECT,
                },
            ),
        },
        "security": [{}, {"key": []}],
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                **_requests(),
                **ANSWERS,
                **SHOWN,
            },
        },
    }
