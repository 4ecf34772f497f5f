"""Requests: the newest of them, by id, while they run and after. Knows stamps and counts; knows no text and no route.

What is kept of one is small and has a bound, whoever sends: the newest KEPT requests, and of all of them together not
more than KEPT_RUNS generations.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ridgeline.core.types import Timings
from ridgeline.engine.course import Course
from ridgeline.server.ledger import Ledger, device_ms, ledger

Json = dict[str, Any]

KEPT = 1000
KEPT_RUNS = 8192  # some 2 KB each


@dataclass(slots=True)
class Run:
    """One generation of a request. ids: the tokens that count, the list that grows while it runs; empty afterwards."""

    index: int
    course: Course
    prompt_tokens: int
    ids: Sequence[int]
    made: int = 0
    finish_reason: str | None = None

    @property
    def completion_tokens(self) -> int:
        return self.made or len(self.ids)

    def settle(self, completion_tokens: int, reason: str) -> None:
        self.ids, self.made, self.finish_reason = (), completion_tokens, reason

    @property
    def device_ms(self) -> float | None:
        return None if self.course.end is None else device_ms(self.course.end.timings)

    def json(self, account: Ledger, timings: Timings | None, spans: Sequence[Json], spans_from: str) -> Json:
        """timings: the engine's, as far as they are."""
        end = self.course.end
        return {
            "index": self.index,
            "key": self.course.key,
            "finish_reason": self.finish_reason,
            **account.json(),
            "device_ms": device_ms(timings) if timings else None,
            "steps": timings.steps if timings else None,
            "mean_rows": timings.rows / timings.steps if timings and timings.steps else None,
            "preemptions": timings.preemptions if timings else None,
            "cached_tokens": end.cached if end else None,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "spans": spans,
            "spans_from": spans_from,
        }


@dataclass(slots=True)
class Record:
    """One request that generates. id: its own name (x-request-id); answer_id: that of the answer, once it has one.

    key: the name of the API key. created: Unix seconds. parsed_ns, ended_ns: 0 until then. status: 0 until an answer
    began. error: OpenAI's code of what went wrong. kept: it was not forgotten yet.
    """

    id: str
    key: str | None
    model: str
    created: int
    arrived_ns: int
    answer_id: str | None = None
    parsed_ns: int = 0
    ended_ns: int = 0
    status: int = 0
    error: str | None = None
    prompt_tokens: int = 0
    kept: bool = True
    runs: list[Run] = field(default_factory=list)

    def close(self, at_ns: int) -> None:
        """The last byte is handed over, or nobody takes it."""
        self.ended_ns = at_ns
        for run in self.runs:
            run.course.close(at_ns)

    def ledger(self, course: Course, running: Timings | None = None) -> Ledger:
        """Of one of its generations, as far as it is. running: what the engine says so far of one that is not over."""
        until_ns = self._until_ns
        course.settle(until_ns)
        return ledger(self.arrived_ns, self.parsed_ns, course, until_ns, running)

    @property
    def _until_ns(self) -> int:
        return self.ended_ns or time.perf_counter_ns()

    def json(self) -> Json:
        """As it stands in a list."""
        reasons = dict.fromkeys(run.finish_reason for run in self.runs if run.finish_reason)
        shares = [run.device_ms for run in self.runs]
        return {
            "id": self.answer_id or self.id,
            "object": "request",
            "request_id": self.id,
            "state": "done" if self.ended_ns else "running",
            "model": self.model,
            "created": self.created,
            "status": self.status or None,
            "error": self.error,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": sum(run.completion_tokens for run in self.runs),
            "finish_reason": ",".join(reasons) or None,
            "wall_ms": (self._until_ns - self.arrived_ns) / 1e6,
            "device_ms": sum(filter(None, shares)) if any(share is not None for share in shares) else None,
        }

    def whole(self, runs: Sequence[Json]) -> Json:
        """runs: its generations. One that did not come as far as the engine has the parts that it came to."""
        told = self.json()
        if not runs:
            parsed_ns = self.parsed_ns or self._until_ns
            stages = ("received", parsed_ns - self.arrived_ns), ("tokenised", self._until_ns - parsed_ns)
            told["parts"] = [{"name": name, "ms": ns / 1e6} for name, ns in stages]
        return {**told, "generations": list(runs)}


Sees = Callable[[Record], bool]


class Requests:
    """One event loop's thread owns it."""

    def __init__(self, kept: int = KEPT, kept_runs: int = KEPT_RUNS) -> None:
        self._kept, self._kept_runs, self._num_runs = kept, kept_runs, 0
        self._records: deque[Record] = deque()

    def open(self, record: Record) -> Record:
        self._records.append(record)
        self._forget()
        return record

    def begun(self, record: Record, run: Run) -> None:
        """The engine was asked for one more of its generations."""
        record.runs.append(run)
        self._num_runs += record.kept
        self._forget()

    def newest(self, sees: Sees, most: int = KEPT) -> list[Record]:
        """The newest first. sees: which of them the asker may."""
        return list(islice(self._seen(sees), most))

    def find(self, id: str, sees: Sees) -> Record | None:
        """By the request's id or the answer's; clients choose the former, so the newest with it that the asker may
        see."""
        return next((one for one in self._seen(sees) if id in (one.id, one.answer_id)), None)

    def names(self) -> dict[int, str]:
        """The id of each generation by the engine's key. Any thread may ask."""
        records = list(self._records)
        return {run.course.key: f"{one.answer_id or one.id}-{run.index}" for one in records for run in one.runs}

    def _seen(self, sees: Sees) -> Iterator[Record]:
        return filter(sees, reversed(self._records))

    def _forget(self) -> None:
        while len(self._records) > self._kept or (self._num_runs > self._kept_runs and len(self._records) > 1):
            oldest = self._records.popleft()
            oldest.kept = False
            self._num_runs -= len(oldest.runs)
