"""The shapes of what the server shows of itself, as JSON schemas by name. Knows no route and no status."""

from __future__ import annotations

from ridgeline.core.flight import PHASES, STALLS, WHATS
from ridgeline.server.ledger import PARTS
from ridgeline.server.schemas import INTEGER, NUMBER, STRING, Json, maybe, record, ref

_PART = record({"name": {"enum": list(PARTS)}, "ms": NUMBER})
LEDGER: Json = {
    "type": "array",
    "items": _PART,
    "description": "Where the time went: contiguous parts, in order. Of a generation that is over they add up to its "
    "wall time. docs/requests.md says what each means.",
}
_SPAN = record({"name": {"enum": list(PARTS)}, "start_ms": NUMBER, "end_ms": NUMBER})
_OF_REQUEST: Json = {
    "id": {**STRING, "description": "Of the answer; of the request where there was none."},
    "object": {"const": "request"},
    "request_id": {**STRING, "description": "As in the header x-request-id."},
    "state": {"enum": ["running", "done"]},
    "model": STRING,
    "created": INTEGER,
    "status": maybe(INTEGER),
    "error": {**maybe(STRING), "description": "OpenAI's code of what went wrong."},
    "prompt_tokens": INTEGER,
    "completion_tokens": INTEGER,
    "finish_reason": {
        **maybe(STRING),
        "description": "stop, length, abort; of several generations all, with commas.",
    },
    "wall_ms": NUMBER,
    "device_ms": {**maybe(NUMBER), "description": "Its share of the device's time. null: it runs."},
}
_GENERATION = record(
    {
        "index": INTEGER,
        "key": {**INTEGER, "description": "Of the generation in a recording."},
        "finish_reason": maybe(STRING),
        "wall_ms": {**NUMBER, "description": "To the last byte of the answer; of an aborted one to its end if later."},
        "parts": LEDGER,
        "overlapped": record(
            {"detokenised_ms": NUMBER, "socket_ms": NUMBER},
            description="The same work while the engine went on, which is in no part.",
        ),
        "device_ms": maybe(NUMBER),
        "steps": maybe(INTEGER),
        "mean_rows": {**maybe(NUMBER), "description": "Requests in a step, on average over this one's steps."},
        "preemptions": maybe(INTEGER),
        "cached_tokens": maybe(INTEGER),
        "prompt_tokens": INTEGER,
        "completion_tokens": INTEGER,
        "spans": {"type": "array", "items": _SPAN},
        "spans_from": {
            "enum": ["recording", "stamps"],
            "description": "stamps: the recording has lost the steps; prefill and decode hold other parts too.",
        },
    }
)
_DETAIL = record(
    {
        **_OF_REQUEST,
        "generations": {"type": "array", "items": ref("RequestGeneration")},
        "parts": {**LEDGER, "description": "Of a request that did not come as far as the engine."},
    },
    " ".join((*_OF_REQUEST, "generations")),
)
_MIDDLES = maybe(record({"p50": NUMBER, "p95": NUMBER}))
_LIVE = record(
    {
        "at_s": {**NUMBER, "description": "Unix time."},
        **dict.fromkeys(("tokens_per_s", "prompt_tokens_per_s", "steps_per_s", "mean_rows"), NUMBER),
        **dict.fromkeys(("running", "waiting", "kv_blocks", "num_blocks"), INTEGER),
        "prefix_hit_rate": {**maybe(NUMBER), "description": "Of prompt tokens, over the last minute."},
        "padding": {**NUMBER, "description": "Share of the positions that the device processed."},
        "preemptions": {**INTEGER, "description": "Since the engine began."},
        "step_ms": {**maybe(NUMBER), "description": "Mean time on the device. null: there was no step."},
        "mbu": {**maybe(NUMBER), "description": "Bytes that the steps had to read, over their time and the ceiling."},
        "mbu_of": {**maybe(STRING), "description": "The ceiling, and where it is from."},
        **{name: {**_MIDDLES, "description": "Of the last minute."} for name in ("ttft_ms", "itl_ms", "e2e_ms")},
        "requests": {"type": "array", "items": ref("RequestEntry")},
    }
)


def _columns(names: str) -> Json:
    return record({name: {"type": "array", "items": NUMBER} for name in names.split()})


_RECORDING = record(
    {
        "kind": {"const": "ridgeline-recording"},
        "version": {"const": 1},
        **dict.fromkeys(("model", "device", "batching"), STRING),
        **dict.fromkeys(("block_size", "num_blocks"), INTEGER),
        "made_unix_s": NUMBER,
        "origin_ns": {**INTEGER, "description": "What every time in microseconds (_us) counts from."},
        "reason": {"enum": ["asked", "crash"]},
        "message": maybe(STRING),
        "steps": _columns(
            "serial launched_us collected_us rows tokens positions padding waiting kv_blocks horizon stall"
        ),
        "rows": _columns("key start count made phase"),
        "lives": _columns("key at_us serial what"),
        "names": {"type": "object", "additionalProperties": STRING, "description": "A generation's id by its key."},
        "phases": {"const": list(PHASES)},
        "stalls": {"const": list(STALLS)},
        "whats": {"const": list(WHATS)},
    },
    description="Tables as columns of equal length. Step i has the next steps.rows[i] of the rows.",
)
SHOWN: Json = {
    "RequestEntry": record(_OF_REQUEST),
    "RequestGeneration": _GENERATION,
    "RequestDetail": _DETAIL,
    "Live": _LIVE,
    "Recording": _RECORDING,
}
