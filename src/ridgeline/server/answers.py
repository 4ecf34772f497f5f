"""OpenAI's words for our nouns, going out: choices, usage, chunks and errors as bytes. Knows no request and no socket.

A stream's chunk is a text between two byte strings that were prepared once, so a token costs one string escape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ridgeline.core.types import End, Timings

encode_json = msgspec.json.Encoder().encode

DONE = b"data: [DONE]\n\n"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Heading:
    """What every object of one response begins with. created: Unix seconds."""

    id: str
    created: int
    model: str

    def fields(self) -> Json:
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}


def usage(prompt: int, completion: int, cached: int) -> Json:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class Chunks:
    """The chunks of one choice. usage_null: a stream that ends with usage has `"usage": null` in every chunk before."""

    def __init__(self, heading: Heading, index: int, *, usage_null: bool) -> None:
        head = encode_json(heading.fields())[:-1]
        self._before = b"data: " + head + b',"choices":[{"index":%d,"text":' % index
        self._open = b',"logprobs":null,"finish_reason":null'
        self._close = b'}],"usage":null}\n\n' if usage_null else b"}]}\n\n"
        self._plain = self._open + self._close

    def text(self, text: str) -> bytes:
        return self._before + encode_json(text) + self._plain

    def text_with(self, text: str, extra: Json) -> bytes:
        """extra is not empty: further fields of the choice."""
        return self._before + encode_json(text) + self._open + b"," + encode_json(extra)[1:-1] + self._close

    def last(self, text: str, finish_reason: str, extra: Json) -> bytes:
        fields = encode_json({"logprobs": None, "finish_reason": finish_reason, **extra})
        return self._before + encode_json(text) + b"," + fields[1:-1] + self._close


def usage_chunk(heading: Heading, counted: Json) -> bytes:
    return b"data: " + encode_json({**heading.fields(), "choices": [], "usage": counted}) + b"\n\n"


def completion(heading: Heading, choices: Sequence[Json], counted: Json) -> bytes:
    return encode_json({**heading.fields(), "choices": choices, "usage": counted})


def error_object(message: str, kind: str, param: str | None = None, code: str | None = None) -> Json:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def timings_object(end: End, kv_block_bytes: int) -> Json:
    """A request's wall clock in milliseconds from its arrival; what never happened took 0.

    arrival_s, opened_s and closed_s are on one clock for all requests of this server, so that they can be lined up.
    """
    t = end.timings
    admitted_ns = t.admitted_ns or t.finished_ns
    first_token_ns = t.first_token_ns or t.finished_ns
    return {
        "received_ms": 0.0,
        "window_ms": _ms(t.held_ns),
        "queued_ms": _ms(admitted_ns - t.arrival_ns - t.held_ns),
        "prefill_ms": _ms(first_token_ns - admitted_ns),
        "decode_ms": _ms(t.finished_ns - first_token_ns),
        "total_ms": _ms(t.finished_ns - t.arrival_ns),
        "arrival_s": t.arrival_ns / 1e9,
        "steps": t.steps,
        "mean_rows": t.rows / t.steps if t.steps else 0.0,
        "preemptions": t.preemptions,
        "batch": _batch(t, kv_block_bytes),
    }


def _batch(t: Timings, kv_block_bytes: int) -> Json | None:
    if (b := t.batch) is None:
        return None
    return {
        "serial": b.serial,
        "size": b.size,
        "closed": b.closed,
        "wait_ms": _ms(b.closed_ns - b.opened_ns),
        "opened_s": b.opened_ns / 1e9,
        "closed_s": b.closed_ns / 1e9,
        "padded_length": b.padded_length,
        "steps": b.steps,
        "positions": b.positions,
        "padding": b.padding,
        "wasted": b.padding / b.positions if b.positions else 0.0,
        "kv_bytes": b.kv_blocks * kv_block_bytes,
    }


def _ms(ns: int) -> float:
    return ns / 1e6
