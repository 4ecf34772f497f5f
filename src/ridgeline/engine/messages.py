"""What crosses the process boundary, and its bytes (msgpack). Knows no socket and no tensor.

In: Submit, Abort, Ping, AskProfile, AskTimings. Out: while starting Progress, then Ready or Failed; while serving Step,
Refused, Pong, Profiled, TimingsNow, and a Progress when what EngineInfo has as `beside` is over.
Arrays travel as raw little-endian bytes, so that a step of 256 tokens costs microseconds, not one object a token.
"""

from __future__ import annotations

import sys
from typing import Literal

import msgspec
import numpy as np

from ridgeline.core.profile import PlaceTime
from ridgeline.core.types import End, Events, NewRequest, Sampling, Scores, Timings

assert sys.byteorder == "little", "arrays are sent as they lie in memory; a big-endian machine needs a swap here"


class Submit(msgspec.Struct, frozen=True, tag="submit", array_like=True):
    """A request. prompt_ids and output_ids: int32 bytes."""

    key: int
    prompt_ids: bytes
    output_ids: bytes
    max_tokens: int
    sampling: Sampling
    arrival_ns: int
    cache_salt: str

    @staticmethod
    def of(request: NewRequest) -> Submit:
        return Submit(
            request.key,
            request.prompt_ids.astype(np.int32, copy=False).tobytes(),
            request.output_ids.astype(np.int32, copy=False).tobytes(),
            request.max_tokens,
            request.sampling,
            request.arrival_ns,
            request.cache_salt,
        )

    def request(self) -> NewRequest:
        return NewRequest(
            self.key,
            np.frombuffer(self.prompt_ids, np.int32),
            self.max_tokens,
            self.sampling,
            self.arrival_ns,
            np.frombuffer(self.output_ids, np.int32),
            self.cache_salt,
        )


class Abort(msgspec.Struct, frozen=True, tag="abort", array_like=True):
    """The client is gone: end the request within one step."""

    key: int


class Ping(msgspec.Struct, frozen=True, tag="ping", array_like=True):
    """Are you alive? The loop answers with a Pong between two steps."""

    id: int


class Pong(msgspec.Struct, frozen=True, tag="pong", array_like=True):
    id: int


class AskProfile(msgspec.Struct, frozen=True, tag="ask_profile", array_like=True):
    """Begin or end a trace of the engine, or ask how it stands. It ends by itself after max_seconds or max_steps.
    shapes: record those of operands too. The answer is a Profiled."""

    id: int
    action: Literal["start", "stop", "state"]
    max_seconds: float = 0.0
    max_steps: int = 0
    shapes: bool = False


class ProfileMade(msgspec.Struct, frozen=True, array_like=True):
    """A trace that was written. path: on the engine's machine. ended: stop, max_seconds or max_steps."""

    path: str
    bytes: int
    steps: int
    seconds: float
    ended: str
    places: tuple[PlaceTime, ...]


class Profiled(msgspec.Struct, frozen=True, tag="profiled", array_like=True):
    """The answer to AskProfile: how it stands now. seconds, steps, max_seconds, max_steps: of the trace that runs.

    made: the trace that ended last, unless one was begun since; error: why there is none. refusal: why it was not done
    as asked; conflict: because of the state of things, so that asking again is of no use.
    """

    id: int
    running: bool = False
    seconds: float = 0.0
    steps: int = 0
    max_seconds: float | None = None
    max_steps: int | None = None
    made: ProfileMade | None = None
    error: str | None = None
    refusal: str | None = None
    conflict: bool = False


class AskTimings(msgspec.Struct, frozen=True, tag="ask_timings", array_like=True):
    """How far are these requests? The answer, between two steps, is a TimingsNow."""

    id: int
    keys: tuple[int, ...]


class TimingsNow(msgspec.Struct, frozen=True, tag="timings_now", array_like=True):
    """timings: by key, of those that are not over. Those who run are told up to the newest commit, as finished_ns."""

    id: int
    timings: dict[int, Timings]


class Progress(msgspec.Struct, frozen=True, tag="progress", array_like=True):
    """Starting: how far. done and total are in the phase's own unit (bytes, steps)."""

    phase: str
    done: int
    total: int


class EngineInfo(msgspec.Struct, frozen=True):
    """What the engine turned out to be: facts for /v1/models, the start log and clients' arithmetic.

    memory_bytes_per_s: that its steps can read at most, memory_of: in words, and whose they are; None: nobody knows.
    ahead_ms: from the start of the engine's own process until it was prepared to build anything, ahead_waited_ms: the
    part of it for which its order waited. beside: what is still done while it serves; a Progress says when it is over.
    """

    model: str
    dtype: str
    device: str
    max_model_len: int
    vocab: int
    block_size: int
    num_blocks: int
    kv_block_bytes: int
    weight_bytes: int
    memory_plan: str
    batching: str
    notes: tuple[str, ...]
    start_ms: dict[str, float]
    memory_bytes_per_s: float | None = None
    memory_of: str | None = None
    ahead_ms: float = 0.0
    ahead_waited_ms: float = 0.0
    beside: str = ""


class Ready(msgspec.Struct, frozen=True, tag="ready", array_like=True):
    info: EngineInfo


class Failed(msgspec.Struct, frozen=True, tag="failed", array_like=True):
    """The engine could not start, or ended. expected: the message is meant for the operator; no traceback is needed."""

    message: str
    expected: bool

    @property
    def brief(self) -> str:
        """In words for a client: a traceback belongs in the log; its last line says enough."""
        if self.expected:
            return self.message
        return f"{self.message.strip().splitlines()[-1]}; the server's log has the details"


class Counters(msgspec.Struct, frozen=True, array_like=True):
    """The scheduler after a step. running, waiting, kv_blocks: now; the rest: since the engine started.

    positions, padding: token positions that the device processed, and how many of them were of no use. prefix_queried,
    prefix_hit: prompt tokens looked up in the prefix cache, and found there. device_ns: steps' durations; moved_bytes:
    what they had to stream at least.
    """

    running: int = 0
    waiting: int = 0
    kv_blocks: int = 0
    preemptions: int = 0
    dropped_tokens: int = 0
    steps: int = 0
    positions: int = 0
    padding: int = 0
    prefix_queried: int = 0
    prefix_hit: int = 0
    device_ns: int = 0
    moved_bytes: int = 0


class Refused(msgspec.Struct, frozen=True, tag="refused", array_like=True):
    """A request that can never run."""

    key: int
    message: str
    param: str | None


class PackedScores(msgspec.Struct, frozen=True, array_like=True):
    """Scores. tokens, top_ids: int32 bytes; values, top_values: float32 bytes."""

    owner: int
    prompt: bool
    first: int
    tokens: bytes
    values: bytes
    top_ids: bytes
    top_values: bytes

    @staticmethod
    def of(scores: Scores) -> PackedScores:
        return PackedScores(
            scores.owner,
            scores.prompt,
            scores.first,
            scores.tokens.astype(np.int32, copy=False).tobytes(),
            scores.values.astype(np.float32, copy=False).tobytes(),
            scores.top_ids.astype(np.int32, copy=False).tobytes(),
            scores.top_values.astype(np.float32, copy=False).tobytes(),
        )

    def scores(self) -> Scores:
        tokens = np.frombuffer(self.tokens, np.int32)
        shape = (len(tokens), -1 if len(self.top_ids) else 0)
        return Scores(
            self.owner,
            self.prompt,
            self.first,
            tokens,
            np.frombuffer(self.values, np.float32),
            np.frombuffer(self.top_ids, np.int32).reshape(shape),
            np.frombuffer(self.top_values, np.float32).reshape(shape),
        )


class Step(msgspec.Struct, frozen=True, tag="step", array_like=True):
    """One commit's Events. keys: int64 bytes; counts, tokens: int32 bytes."""

    keys: bytes
    counts: bytes
    tokens: bytes
    ends: tuple[End, ...]
    scores: tuple[PackedScores, ...]
    counters: Counters

    @staticmethod
    def of(events: Events, counters: Counters) -> Step:
        return Step(
            events.keys.tobytes(),
            events.counts.astype(np.int32).tobytes(),
            events.tokens.tobytes(),
            events.ends,
            tuple(map(PackedScores.of, events.scores)) if events.scores else (),
            counters,
        )

    def events(self) -> Events:
        keys = np.frombuffer(self.keys, np.int64)
        counts = np.frombuffer(self.counts, np.int32).astype(np.int64)
        scores = tuple(packed.scores() for packed in self.scores)
        return Events(keys, counts, np.frombuffer(self.tokens, np.int32), self.ends, scores)


In = Submit | Abort | Ping | AskProfile | AskTimings
Out = Progress | Ready | Failed | Step | Refused | Pong | Profiled | TimingsNow

_encoder = msgspec.msgpack.Encoder()
_decode_in: msgspec.msgpack.Decoder[In] = msgspec.msgpack.Decoder(In)
_decode_out: msgspec.msgpack.Decoder[Out] = msgspec.msgpack.Decoder(Out)


def encode(message: In | Out) -> bytes:
    return _encoder.encode(message)


def decode_in(data: bytes) -> In:
    return _decode_in.decode(data)


def decode_out(data: bytes) -> Out:
    return _decode_out.decode(data)


def encode_events(events: Events, counters: Counters) -> bytes:
    """What a step costs to send: the benchmark of the logic tower counts it."""
    return _encoder.encode(Step.of(events, counters))
