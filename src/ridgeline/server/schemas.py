"""The shapes of answers as JSON schemas, by name. Knows no route, no request and no status."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

STRING: Json = {"type": "string"}
INTEGER: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
_IDS: Json = {"type": "array", "items": INTEGER}


def record(properties: Json, required: str | None = None, **more: Any) -> Json:
    """required: names with spaces between; default all."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required.split(),
        **more,
    }


def maybe(schema: Json) -> Json:
    return {"oneOf": [schema, {"type": "null"}]}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_BATCH = record(
    {
        "serial": INTEGER,
        "size": INTEGER,
        "closed": {"enum": ["full", "window", "ready"], "description": "Why the batch started; ready: did not wait."},
        "wait_ms": NUMBER,
        "opened_s": NUMBER,
        "closed_s": NUMBER,
        "padded_length": INTEGER,
        "steps": INTEGER,
        "positions": {**INTEGER, "description": "Token positions the device processed, padding included."},
        "padding": INTEGER,
        "wasted": {**NUMBER, "description": "padding / positions"},
        "kv_bytes": INTEGER,
    },
    description="The batch that the request was in, where batches have a beginning and an end.",
)
_TIMINGS = record(
    {
        **dict.fromkeys(
            ("received_ms", "window_ms", "queued_ms", "prefill_ms", "decode_ms", "total_ms", "arrival_s"), NUMBER
        ),
        "steps": INTEGER,
        "mean_rows": {**NUMBER, "description": "Requests in a step, on average over this one's steps."},
        "preemptions": INTEGER,
        "batch": maybe(ref("Batch")),
        "parts": {"type": "array", "items": record({"name": STRING, "ms": NUMBER}), "description": "As far as known."},
        "device_ms": {**NUMBER, "description": "The share of the device's time."},
    },
    description="Where the time went: milliseconds, and seconds (_s) on the server's own clock.",
)
_LOGPROBS = record(
    {
        "tokens": {
            "type": "array",
            "items": STRING,
            "description": "A token that is no whole UTF-8 is written `bytes:\\xe2\\x80`.",
        },
        "token_logprobs": {"type": "array", "items": maybe(NUMBER), "description": "null: the prompt's first token."},
        "top_logprobs": {
            "type": "array",
            "items": maybe({"type": "object", "additionalProperties": NUMBER}),
            "description": "The likeliest tokens and the token itself. Of tokens with one text the likeliest is shown.",
        },
        "text_offset": {"type": "array", "items": INTEGER, "description": "Where each token begins in the text."},
    }
)
_TOKEN = {"token": STRING, "logprob": NUMBER, "bytes": maybe(_IDS)}
_CHAT_LOGPROBS = record(
    {
        "content": {
            "type": "array",
            "items": record({**_TOKEN, "top_logprobs": {"type": "array", "items": record(_TOKEN)}}),
        },
        "refusal": {"type": "null"},
    }
)
_REASON = maybe({"enum": ["stop", "length"]})
_EXTRA = {"token_ids": _IDS, "prompt_token_ids": _IDS, "timings": ref("Timings")}
_CHOICE = record(
    {
        "index": {**INTEGER, "description": "`n` for each prompt, in the order of the prompts."},
        "text": STRING,
        "finish_reason": _REASON,
        "logprobs": maybe(ref("Logprobs")),
        **_EXTRA,
    },
    "index text finish_reason logprobs",
)
_MESSAGE = record({"role": {"const": "assistant"}, "content": STRING, "refusal": {"type": "null"}})
_CHAT_CHOICE = record(
    {
        "index": INTEGER,
        "message": _MESSAGE,
        "finish_reason": _REASON,
        "logprobs": maybe(ref("ChatLogprobs")),
        **_EXTRA,
    },
    "index message finish_reason logprobs",
)
_USAGE = record(
    {
        "prompt_tokens": INTEGER,
        "completion_tokens": {**INTEGER, "description": "Up to the token that completed a stop string."},
        "total_tokens": INTEGER,
        "prompt_tokens_details": record({"cached_tokens": INTEGER}),
    }
)


def _answer(kind: str, choice: str) -> Json:
    return record(
        {
            "id": STRING,
            "object": {"const": kind},
            "created": INTEGER,
            "model": STRING,
            "choices": {"type": "array", "items": ref(choice)},
            "usage": ref("Usage"),
        }
    )


_ERROR = record(
    {
        "error": record(
            {"message": STRING, "type": STRING, "param": maybe(STRING), "code": maybe(STRING)},
            description="param: the field of the request that is meant.",
        )
    }
)
_MODEL = record(
    {
        "id": STRING,
        "object": {"const": "model"},
        "created": INTEGER,
        "owned_by": STRING,
        "root": STRING,
        "max_model_len": INTEGER,
        "ridgeline": record({"dtype": STRING, "device": STRING, "batching": STRING, "note": maybe(STRING)}),
    }
)
NOT_READY = {
    "oneOf": [
        record(
            {
                "status": {"const": "starting"},
                "phase": STRING,
                "percent": maybe(NUMBER),
                "done": INTEGER,
                "total": INTEGER,
            }
        ),
        record(
            {
                "status": {"const": "restoring"},
                "phase": STRING,
                "percent": maybe(NUMBER),
                "done": INTEGER,
                "total": INTEGER,
                "attempt": INTEGER,
                "reason": STRING,
            }
        ),
        record({"status": {"const": "draining"}}),
        record({"status": {"const": "failed"}, "message": STRING}),
        record({"status": {"const": "stalled"}}),
    ]
}
TOKENS = record(
    {
        "tokens": _IDS,
        "count": INTEGER,
        "max_model_len": INTEGER,
        "token_strs": {"type": "array", "items": STRING},
    },
    "tokens count max_model_len",
)
_NAMES = ("eos_token", "bos_token", "pad_token", "unk_token", "chat_template")
TOKENIZER = record(
    dict.fromkeys(_NAMES, maybe(STRING)) | {"vocab_size": INTEGER, "max_model_len": INTEGER},
    description="null: the model has none.",
)
_PLACE = record(
    {
        "region": STRING,
        "place": STRING,
        "calls": INTEGER,
        "calls_per_step": NUMBER,
        "host_ms": {**NUMBER, "description": "On the engine's thread, the profiler's own cost included."},
        "device_ms": {**maybe(NUMBER), "description": "Of the kernels launched there; null: there is no GPU."},
        "share": {
            **NUMBER,
            "description": "Of the time of all places: the device's where a GPU did anything, otherwise the host's.",
        },
    }
)
_PROFILE_TRACE = record(
    {
        "object": {"const": "profile.trace"},
        "path": {**STRING, "description": "On the server's machine. Open it in https://ui.perfetto.dev."},
        "bytes": INTEGER,
        "steps": INTEGER,
        "seconds": NUMBER,
        "ended": {"enum": ["stop", "max_seconds", "max_steps"]},
        "places": {"type": "array", "items": _PLACE},
    }
)
_PROFILE_STATE = record(
    {
        "object": {"const": "profile.state"},
        "status": {"enum": ["idle", "running"]},
        "steps": INTEGER,
        "seconds": NUMBER,
        "max_steps": maybe(INTEGER),
        "max_seconds": maybe(NUMBER),
        "last": {**maybe(ref("ProfileTrace")), "description": "The trace that ended last, unless one runs."},
        "error": {**maybe(STRING), "description": "Why the last one has no trace."},
    }
)

ANSWERS: Json = {
    "Completion": _answer("text_completion", "Choice"),
    "ChatCompletion": _answer("chat.completion", "ChatChoice"),
    "Choice": _CHOICE,
    "ChatChoice": _CHAT_CHOICE,
    "Logprobs": _LOGPROBS,
    "ChatLogprobs": _CHAT_LOGPROBS,
    "Usage": _USAGE,
    "Timings": _TIMINGS,
    "Batch": _BATCH,
    "Model": _MODEL,
    "ProfileState": _PROFILE_STATE,
    "ProfileTrace": _PROFILE_TRACE,
    "Error": _ERROR,
}
