"""What a client knows about requests: what it sent, what came back, how long it took. Plain data; knows no HTTP.

Times that end in `_ms` are milliseconds. `arrival_s`, `opened_s` and `closed_s` are seconds on the server's monotonic
clock, so that the requests of one server can be lined up; `sent_s` is seconds since the load began, on the client's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Purpose = Literal["measured", "warm-up"]


@dataclass(frozen=True, slots=True)
class Shape:
    """One request to send. prompt: text, or token ids for a server that takes them."""

    prompt: str | tuple[int, ...]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class ServedBatch:
    """The batch that a request ran in, as far as it had come when that request ended."""

    serial: int
    size: int
    closed: str
    wait_ms: float
    opened_s: float
    closed_s: float
    padded_length: int
    steps: int
    positions: int
    padding: int
    kv_bytes: int

    @staticmethod
    def parse(body: Mapping[str, Any]) -> ServedBatch:
        return ServedBatch(
            serial=int(body["serial"]),
            size=int(body["size"]),
            closed=str(body["closed"]),
            wait_ms=float(body["wait_ms"]),
            opened_s=float(body["opened_s"]),
            closed_s=float(body["closed_s"]),
            padded_length=int(body["padded_length"]),
            steps=int(body["steps"]),
            positions=int(body["positions"]),
            padding=int(body["padding"]),
            kv_bytes=int(body["kv_bytes"]),
        )


@dataclass(frozen=True, slots=True)
class ServerTimings:
    """A Ridgeline server's own account of a request; the four phases add up to total_ms."""

    window_ms: float
    queued_ms: float
    prefill_ms: float
    decode_ms: float
    total_ms: float
    arrival_s: float
    steps: int
    mean_rows: float
    preemptions: int
    batch: ServedBatch | None

    @property
    def compute_ms(self) -> float:
        return self.prefill_ms + self.decode_ms

    @property
    def finished_s(self) -> float:
        return self.arrival_s + self.total_ms / 1e3

    @staticmethod
    def parse(body: Mapping[str, Any]) -> ServerTimings:
        """Raises KeyError, TypeError or ValueError where `body` is something else."""
        batch = body["batch"]
        return ServerTimings(
            window_ms=float(body["window_ms"]),
            queued_ms=float(body["queued_ms"]),
            prefill_ms=float(body["prefill_ms"]),
            decode_ms=float(body["decode_ms"]),
            total_ms=float(body["total_ms"]),
            arrival_s=float(body["arrival_s"]),
            steps=int(body["steps"]),
            mean_rows=float(body["mean_rows"]),
            preemptions=int(body["preemptions"]),
            batch=None if batch is None else ServedBatch.parse(batch),
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """A completion that came back.

    timings: None where the server is not a Ridgeline server. event_ms: of a stream, when each event with text came,
    since the sending; empty for an answer in one piece. counted: the server said how many tokens there were; without,
    prompt_tokens is 0 and tokens the number of events.
    """

    prompt_tokens: int
    tokens: int
    timings: ServerTimings | None
    event_ms: tuple[float, ...] = ()
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request from sending to its end: either `reply` or `error` is set.

    number: counts from 1 in the order of sending. in_flight: requests that the load kept in flight, None where it
    started them by the clock; then planned_s is when it should have been sent. error: what failed, equal for failures
    of the same cause; kind: the same in a word or two (remote.py). retry_after_s: when a server that refused will
    listen again.
    """

    number: int
    in_flight: int | None
    purpose: Purpose
    shape: Shape
    sent_s: float
    latency_ms: float
    reply: Reply | None = None
    error: str | None = None
    kind: str | None = None
    planned_s: float | None = None
    retry_after_s: float | None = None

    @property
    def ended_s(self) -> float:
        return self.sent_s + self.latency_ms / 1e3

    @property
    def timings(self) -> ServerTimings | None:
        return self.reply.timings if self.reply else None


def whole_batches(timings: Iterable[ServerTimings]) -> list[ServedBatch]:
    """Each batch once, in the order in which they closed.

    Members report their batch as it was when they ended, so the record with the most steps is the complete one.
    """
    best: dict[int, ServedBatch] = {}
    for batch in (t.batch for t in timings):
        if batch is not None and (batch.serial not in best or batch.steps > best[batch.serial].steps):
            best[batch.serial] = batch
    return sorted(best.values(), key=lambda b: (b.closed_s, b.serial))


def mean_rows(timings: Iterable[ServerTimings]) -> float | None:
    """Rows in a step as the requests saw it: each step of each request counts once. None without steps."""
    seen = list(timings)
    steps = sum(t.steps for t in seen)
    return sum(t.mean_rows * t.steps for t in seen) / steps if steps else None
