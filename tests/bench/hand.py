"""Outcomes, screens and time made by hand."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from rich.console import Console

from ridgeline.bench.records import Outcome, Purpose, Reply, ServedBatch, ServerTimings, Shape


class HandClock:
    """Time passes only in sleep, at once; tasks that were started before it get to run first."""

    def __init__(self) -> None:
        self.time_s = 1000.0

    def now(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.time_s += seconds
        await asyncio.sleep(0)


class Screen:
    """A console on a string. Without a colour system it is a pipe."""

    def __init__(self, width: int = 100, **options: Any) -> None:
        self.file = io.StringIO()
        self.console = Console(file=self.file, width=width, **options)

    @property
    def text(self) -> str:
        return self.file.getvalue()

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.text.splitlines()]


def batch(serial: int, size: int = 2, closed_s: float = 100.0, **changes: Any) -> ServedBatch:
    fields: dict[str, Any] = {
        "serial": serial,
        "size": size,
        "closed": "window",
        "wait_ms": 50.0,
        "opened_s": closed_s - 0.05,
        "closed_s": closed_s,
        "padded_length": 40,
        "steps": 20,
        "positions": 1000,
        "padding": 310,
        "kv_bytes": 3 * 2**19,
    }
    return ServedBatch(**fields | changes)


def timings(
    arrival_s: float = 100.0,
    window_ms: float = 0.0,
    queued_ms: float = 0.0,
    prefill_ms: float = 100.0,
    decode_ms: float = 400.0,
    of: ServedBatch | None = None,
    mean_rows: float = 1.0,
    steps: int = 20,
) -> ServerTimings:
    return ServerTimings(
        window_ms=window_ms,
        queued_ms=queued_ms,
        prefill_ms=prefill_ms,
        decode_ms=decode_ms,
        total_ms=window_ms + queued_ms + prefill_ms + decode_ms,
        arrival_s=arrival_s,
        steps=steps,
        mean_rows=mean_rows,
        preemptions=0,
        batch=of,
    )


def outcome(
    number: int,
    told: ServerTimings | None = None,
    *,
    in_flight: int | None = None,
    purpose: Purpose = "measured",
    sent_s: float = 0.0,
    latency_ms: float = 500.0,
    tokens: int = 10,
    error: str | None = None,
) -> Outcome:
    reply = None if error else Reply(prompt_tokens=5, tokens=tokens, timings=told)
    return Outcome(number, in_flight, purpose, Shape("a", tokens), sent_s, latency_ms, reply, error)
