"""OpenAI's words for our nouns, going out: choices, usage, chunks and errors as bytes. Knows no request and no socket.

A stream's chunk is a text between two byte strings that were prepared once, so a token costs one string escape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from ridgeline.core.types import End, Timings
from ridgeline.server.ledger import Ledger, device_ms

encode_json = msgspec.json.Encoder().encode

DONE = b"data: [DONE]\n\n"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Heading:
    """What every object of one response begins with. created: Unix seconds."""

    id: str
    created: int
    model: str

    def fields(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


class CompletionShape:
    """How /v1/completions writes a choice: its text is a field.

    before_text, after_text: around the text in a chunk. opening: what a choice's first chunk has alone.
    """

    prefix, whole, chunk = "cmpl-", "text_completion", "text_completion"
    before_text, after_text = b'"text":', b""
    opening: ClassVar[Json | None] = None

    def choice(self, text: str) -> Json:
        return {"text": text}

    def delta(self, text: str) -> Json:
        return {"text": text}


class ChatShape:
    """How /v1/chat/completions writes a choice: a message, and in a stream what is added to it."""

    prefix, whole, chunk = "chatcmpl-", "chat.completion", "chat.completion.chunk"
    before_text, after_text = b'"delta":{"content":', b"}"
    opening: ClassVar[Json | None] = {"delta": {"role": "assistant", "content": "", "refusal": None}}

    def choice(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def delta(self, text: str) -> Json:
        return {"delta": {"content": text} if text else {}}


Shape = CompletionShape | ChatShape


def usage(prompt: int, completion: int, cached: int) -> Json:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class Chunks:
    """The chunks of one choice. usage_null: a stream that ends with usage has `"usage": null` in every chunk before."""

    def __init__(self, heading: Heading, index: int, shape: Shape, *, usage_null: bool) -> None:
        self._shape, self._usage_null = shape, usage_null
        self._head = b"data: " + encode_json(heading.fields(shape.chunk))[:-1] + b',"choices":[{"index":%d,' % index
        self._before = self._head + shape.before_text
        end = b'}],"usage":null}\n\n' if usage_null else b"}]}\n\n"
        self._after = shape.after_text + b',"logprobs":null,"finish_reason":null' + end

    def text(self, text: str) -> bytes:
        """Nothing but text: what nearly all chunks are."""
        return self._before + encode_json(text) + self._after

    def opening(self, opening: Json, counted: Json | None) -> bytes:
        return self._written(opening | {"logprobs": None, "finish_reason": None}, counted)

    def full(self, text: str, logprobs: Json | None, reason: str | None, extra: Json, counted: Json | None) -> bytes:
        """extra: further fields of the choice. counted: the usage so far, if every chunk has it."""
        fields = {"logprobs": logprobs, "finish_reason": reason, **extra}
        return self._written(self._shape.delta(text) | fields, counted)

    def _written(self, fields: Json, counted: Json | None) -> bytes:
        data = self._head + encode_json(fields)[1:] + b"]"
        if self._usage_null or counted is not None:
            data += b',"usage":' + encode_json(counted)
        return data + b"}\n\n"


def usage_chunk(heading: Heading, shape: Shape, counted: Json) -> bytes:
    return b"data: " + encode_json({**heading.fields(shape.chunk), "choices": [], "usage": counted}) + b"\n\n"


def whole_answer(heading: Heading, shape: Shape, choices: Sequence[Json], counted: Json) -> bytes:
    return encode_json({**heading.fields(shape.whole), "choices": choices, "usage": counted})


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """Names the fields that were accepted and changed nothing; no header where there are none."""
    return {"x-ridgeline-ignored": ", ".join(names)} if names else {}


def error_object(message: str, kind: str, param: str | None = None, code: str | None = None) -> Json:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def timings_object(end: End, account: Ledger, kv_block_bytes: int) -> Json:
    """A request's wall clock in milliseconds from its arrival; what never happened took 0.

    parts, device_ms: its ledgers, the former up to now. arrival_s, opened_s and closed_s are on one clock for all
    requests of this server, so that they can be lined up.
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
        "parts": account.json()["parts"],
        "device_ms": device_ms(t),
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
