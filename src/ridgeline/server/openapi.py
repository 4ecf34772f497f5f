"""The OpenAPI document: every route with every status that it can answer. The request's half is made from FIELDS.

Knows the shapes of answers; makes none.
"""

from __future__ import annotations

from typing import Any

import ridgeline
from ridgeline.server.fields import FIELDS

Json = dict[str, Any]

_STRING: Json = {"type": "string"}
_INTEGER: Json = {"type": "integer"}
_NUMBER: Json = {"type": "number"}
_IDS: Json = {"type": "array", "items": _INTEGER}


def _object(properties: Json, required: str | None = None, **more: Any) -> Json:
    """required: names with spaces between; default all."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required.split(),
        **more,
    }


def _maybe(schema: Json) -> Json:
    return {"oneOf": [schema, {"type": "null"}]}


def _nullable(schema: Json) -> Json:
    """The same, or null: as if the field were left out."""
    if "type" in schema:
        return {**schema, "type": sorted({schema["type"], "null"})}
    if "const" in schema:
        return {"enum": [schema["const"], None]}
    return {**schema, "oneOf": [*schema["oneOf"], {"type": "null"}]} if "oneOf" in schema else schema


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _request() -> Json:
    example = {"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0.8, "seed": 1}
    properties = {
        name: {**(field.schema if name == "prompt" else _nullable(field.schema)), "description": field.help}
        for name, field in FIELDS.items()
    }
    return _object(properties, "prompt", additionalProperties=False, example=example)


_BATCH = _object(
    {
        "serial": _INTEGER,
        "size": _INTEGER,
        "closed": {"enum": ["full", "window", "ready"], "description": "Why the batch started; ready: did not wait."},
        "wait_ms": _NUMBER,
        "opened_s": _NUMBER,
        "closed_s": _NUMBER,
        "padded_length": _INTEGER,
        "steps": _INTEGER,
        "positions": {**_INTEGER, "description": "Token positions the device processed, padding included."},
        "padding": _INTEGER,
        "wasted": {**_NUMBER, "description": "padding / positions"},
        "kv_bytes": _INTEGER,
    },
    description="The batch that the request was in, where batches have a beginning and an end.",
)
_TIMINGS = _object(
    {
        **dict.fromkeys(
            ("received_ms", "window_ms", "queued_ms", "prefill_ms", "decode_ms", "total_ms", "arrival_s"), _NUMBER
        ),
        "steps": _INTEGER,
        "mean_rows": {**_NUMBER, "description": "Requests in a step, on average over this one's steps."},
        "preemptions": _INTEGER,
        "batch": _maybe(_ref("Batch")),
    },
    description="Where the time went: milliseconds, and seconds (_s) on the server's own clock.",
)
_CHOICE = _object(
    {
        "index": {**_INTEGER, "description": "The prompt's place in the list."},
        "text": _STRING,
        "finish_reason": _maybe({"enum": ["stop", "length"]}),
        "logprobs": {"type": "null"},
        "token_ids": _IDS,
        "prompt_token_ids": _IDS,
        "timings": _ref("Timings"),
    },
    "index text finish_reason logprobs",
)
_USAGE = _object(
    {
        "prompt_tokens": _INTEGER,
        "completion_tokens": {**_INTEGER, "description": "Up to the token that completed a stop string."},
        "total_tokens": _INTEGER,
        "prompt_tokens_details": _object({"cached_tokens": _INTEGER}),
    }
)
_COMPLETION = _object(
    {
        "id": _STRING,
        "object": {"const": "text_completion"},
        "created": _INTEGER,
        "model": _STRING,
        "choices": {"type": "array", "items": _ref("Choice")},
        "usage": _maybe(_ref("Usage")),
    },
    "id object created model choices",
)
_ERROR = _object(
    {
        "error": _object(
            {"message": _STRING, "type": _STRING, "param": _maybe(_STRING), "code": _maybe(_STRING)},
            description="param: the field of the request that is meant.",
        )
    }
)
_MODEL = _object(
    {
        "id": _STRING,
        "object": {"const": "model"},
        "created": _INTEGER,
        "owned_by": _STRING,
        "root": _STRING,
        "max_model_len": _INTEGER,
        "ridgeline": _object({"dtype": _STRING, "device": _STRING, "batching": _STRING, "note": _maybe(_STRING)}),
    }
)
_NOT_READY = {
    "oneOf": [
        _object(
            {
                "status": {"const": "starting"},
                "phase": _STRING,
                "percent": _maybe(_NUMBER),
                "done": _INTEGER,
                "total": _INTEGER,
            }
        ),
        _object(
            {
                "status": {"const": "restoring"},
                "phase": _STRING,
                "percent": _maybe(_NUMBER),
                "done": _INTEGER,
                "total": _INTEGER,
                "attempt": _INTEGER,
                "reason": _STRING,
            }
        ),
        _object({"status": {"const": "draining"}}),
        _object({"status": {"const": "failed"}, "message": _STRING}),
        _object({"status": {"const": "stalled"}}),
    ]
}
_RETRY_AFTER = {"Retry-After": {"schema": _INTEGER, "description": "Seconds."}}
_IGNORED = {"x-ridgeline-ignored": {"schema": _STRING, "description": "Fields that were accepted and changed nothing."}}


def _json(description: str, schema: Json, headers: Json | None = None) -> Json:
    answer: Json = {"description": description, "content": {"application/json": {"schema": schema}}}
    return answer | ({"headers": headers} if headers else {})


def _error(description: str, headers: Json | None = None) -> Json:
    return _json(description, _ref("Error"), headers)


_UNAVAILABLE = _error("The server is starting or stopping, or its engine has ended.", _RETRY_AFTER)
_UNAUTHORIZED = _error("The server has API keys, and none of them was sent.")
_DEFECT = _error("A defect in the server.")


def _get(tag: str, summary: str, responses: Json, **more: Any) -> Json:
    return {"get": {"tags": [tag], "summary": summary, "responses": responses, **more}}


def _completions() -> Json:
    events = {"text/event-stream": {"schema": {**_STRING, "description": "Events `data: {a Completion}`, then [DONE]"}}}
    done = _json("The completion, or its events if `stream` is true.", _ref("Completion"), _IGNORED)
    done["content"] |= events
    return {
        "post": {
            "tags": ["Completions"],
            "summary": "Continue a prompt",
            "description": "An error after a stream has begun is an event with the error object; then the stream ends. "
            "Closing the connection ends the generation.",
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("CompletionRequest")}}},
            "responses": {
                "200": done,
                "400": _error("A field is wrong, unknown or not implemented; `param` names it."),
                "404": _error("The model is not served here."),
                "401": _UNAUTHORIZED,
                "408": _error("The time that the request was allowed has passed, or its body did not come in time."),
                "413": _error("The body is too long."),
                "415": _error("The body is not declared as JSON."),
                "429": _error("As much as the server takes is waiting already.", _RETRY_AFTER),
                "500": _DEFECT,
                "503": _UNAVAILABLE,
            },
        }
    }


def openapi() -> Json:
    """The document, OpenAPI 3.1. Paths that do not exist answer 404, other methods 405, with the Error object."""
    name = [{"name": "id", "in": "path", "required": True, "schema": _STRING}]
    models = _object({"object": {"const": "list"}, "data": {"type": "array", "items": _ref("Model")}})
    status = _object({"status": _STRING})
    found = {
        "200": _json("The model.", _ref("Model")),
        "404": _error("No such model."),
        "401": _UNAUTHORIZED,
        "500": _DEFECT,
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ridgeline",
            "version": ridgeline.__version__,
            "description": "An OpenAI-compatible server. Errors are OpenAI's error object; unknown paths answer 404 "
            "and wrong methods 405, with the same object.",
        },
        "paths": {
            "/v1/completions": _completions(),
            "/v1/models": _get(
                "Models",
                "The model served",
                {"200": _json("A list of one.", models), "401": _UNAUTHORIZED, "500": _DEFECT, "503": _UNAVAILABLE},
            ),
            "/v1/models/{id}": _get("Models", "One model", found | {"503": _UNAVAILABLE}, parameters=name),
            "/health": _get("State", "Does the process answer?", {"200": _json("It does.", status)}),
            "/ready": _get(
                "State",
                "Does the engine make progress?",
                {
                    "200": _json("It made a step in the last ten seconds, or just now.", status),
                    "401": _UNAUTHORIZED,
                    "500": _DEFECT,
                    "503": _json(
                        "Not now: starting, restoring, draining, failed or stalled.", _NOT_READY, _RETRY_AFTER
                    ),
                },
            ),
            "/metrics": _get(
                "State",
                "Counters and histograms for Prometheus",
                {
                    "200": {
                        "description": "docs/metrics.md lists them.",
                        "content": {"text/plain": {"schema": _STRING}},
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
                "CompletionRequest": _request(),
                "Completion": _COMPLETION,
                "Choice": _CHOICE,
                "Usage": _USAGE,
                "Timings": _TIMINGS,
                "Batch": _BATCH,
                "Model": _MODEL,
                "Error": _ERROR,
            },
        },
    }
