"""Station: something that serves a load in this process, and what was measured while it did. Knows no rung.

An engine is given every request when its time comes, and sleeps until then when it has nothing to do; transformers'
generate serves one after the other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from ridgeline.core.cost import Formats, Row, StepShape, step_costs, total
from ridgeline.core.spec import ModelSpec
from ridgeline.core.types import End, Events, NewRequest, Sampling, StepRecord
from ridgeline.engine.engine import Engine, NullSink
from ridgeline.lab.ladder.work import Request


@dataclass(frozen=True, slots=True)
class Measure:
    """What a load was like. makespan_ns: from the first arrival to the last end. steps: iterations of the model.
    visits: launches. rows: sequences of an iteration, mean. positions: computed. padding: of them for nobody. widest:
    positions of a launch at most. prefix_hit: prompt tokens found in the prefix cache. bytes: predicted by core/cost
    from rows, positions and blocks in use of every launch, not counted. None: not known of this station."""

    requests: int
    prompt_tokens: int
    tokens: int
    makespan_ns: int
    latency_p95_ms: float
    ttft_ms: float | None = None
    steps: int | None = None
    visits: int | None = None
    rows: float | None = None
    positions: int | None = None
    padding: int | None = None
    widest: int | None = None
    prefix_hit: int | None = None
    bytes: int | None = None

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.makespan_ns * 1e9

    def json(self) -> dict[str, Any]:
        return asdict(self) | {"tokens_per_s": self.tokens_per_s}


@dataclass(frozen=True, slots=True)
class Served:
    """outputs: a list of tokens for each request, in their order."""

    measure: Measure
    outputs: list[list[int]]


class Station(Protocol):
    def serve(self, requests: Sequence[Request]) -> Served: ...


class Generates(Protocol):
    """transformers' generate: greedy, one at a time, exactly as many tokens as are asked for."""

    def run(self, prompts: Sequence[Sequence[int]], new: Sequence[int]) -> list[list[int]]: ...


class PeerStation:
    def __init__(self, peer: Generates) -> None:
        self._peer = peer

    def serve(self, requests: Sequence[Request]) -> Served:
        outputs, latencies = [], []
        begun = time.perf_counter_ns()
        for request in requests:
            _sleep_until(begun + request.at_ns)
            outputs += self._peer.run([list(request.prompt)], [request.new])
            latencies.append((time.perf_counter_ns() - begun - request.at_ns) / 1e6)
        took = time.perf_counter_ns() - begun
        measure = Measure(
            requests=len(requests),
            prompt_tokens=sum(len(r.prompt) for r in requests),
            tokens=sum(map(len, outputs)),
            makespan_ns=took,
            latency_p95_ms=float(np.percentile(latencies, 95)),
        )
        return Served(measure, outputs)


class EngineStation(NullSink):
    """engine: idle, and left so. It may have served other loads before."""

    def __init__(self, engine: Engine, spec: ModelSpec, formats: Formats, block_size: int) -> None:
        self.engine, self._spec, self._formats, self._block_size = engine, spec, formats, block_size
        self._records: list[StepRecord] = []
        self._keys = 0
        engine.sink = self

    def step(self, record: StepRecord) -> None:
        """The engine's sink."""
        self._records.append(record)

    def serve(self, requests: Sequence[Request]) -> Served:
        self._records.clear()
        found = self.engine.counters().prefix_hit
        try:
            begun, ended, outputs, ends = self._run(requests)
        finally:
            self.engine.discard()
        hit = self.engine.counters().prefix_hit - found
        return Served(self._measure(requests, outputs, ends, ended - begun, hit), outputs)

    def _run(self, requests: Sequence[Request]) -> tuple[int, int, list[list[int]], list[End]]:
        engine, first = self.engine, self._keys
        self._keys += len(requests)
        outputs: list[list[int]] = [[] for _ in requests]
        ends: list[End] = []
        come, begun = 0, time.perf_counter_ns()
        while len(ends) < len(requests):
            now = time.perf_counter_ns()
            while come < len(requests) and begun + requests[come].at_ns <= now:
                engine.submit(_new(first + come, requests[come], begun))
                come += 1
            events = engine.step()
            if events is None:
                coming = [begun + requests[come].at_ns] if come < len(requests) else []
                waking = [] if engine.wake_ns is None else [engine.wake_ns]
                _sleep_until(min(coming + waking))
                continue
            _take(events, first, outputs)
            ends += events.ends
        ended = time.perf_counter_ns()
        while engine.step() is not None:  # what was launched for those who are over
            pass
        return begun, ended, outputs, ends

    def _measure(
        self, requests: Sequence[Request], outputs: list[list[int]], ends: list[End], took_ns: int, hit: int
    ) -> Measure:
        records = self._records
        iterations = sum(map(_iterations, records))
        return Measure(
            requests=len(requests),
            prompt_tokens=sum(len(r.prompt) for r in requests),
            tokens=sum(map(len, outputs)),
            makespan_ns=took_ns,
            latency_p95_ms=float(
                np.percentile([(e.timings.finished_ns - e.timings.arrival_ns) / 1e6 for e in ends], 95)
            ),
            ttft_ms=statistics.median((e.timings.first_token_ns - e.timings.arrival_ns) / 1e6 for e in ends),
            steps=iterations,
            visits=len(records),
            rows=sum(r.rows * _iterations(r) for r in records) / iterations,
            positions=sum(r.positions for r in records),
            padding=sum(r.padding for r in records),
            widest=max(r.positions for r in records),
            prefix_hit=hit,
            bytes=predicted_bytes(self._spec, self._formats, records, self._block_size),
        )


def predicted_bytes(spec: ModelSpec, formats: Formats, records: Sequence[StepRecord], block_size: int) -> int:
    """What all steps must move, by core/cost. It is linear in everything but the weights, which every iteration reads
    once; so the sums over all steps are costed as one, and the weights of the others added. A sequence's context is the
    share of the blocks in use, or without a cache what it computes."""
    real = sum(r.positions - r.padding for r in records)
    context = sum(max(r.kv_blocks * block_size * _iterations(r), r.positions - r.padding) for r in records)
    made, padding = sum(r.tokens for r in records), sum(r.padding for r in records)
    all_steps = total(step_costs(spec, StepShape((Row(real, context),), made, padding), formats))
    weights = total(step_costs(spec, StepShape((), wanted=1), formats)).streamed_bytes
    return all_steps.bytes + (sum(map(_iterations, records)) - 1) * weights


def _iterations(record: StepRecord) -> int:
    """Of a launch: the tokens of a row say how many there were."""
    return max(1, -(-record.tokens // max(1, record.rows)))


def _new(key: int, request: Request, begun: int) -> NewRequest:
    prompt = np.array(request.prompt, np.int32)
    return NewRequest(key, prompt, request.new, Sampling(temperature=0.0), begun + request.at_ns)


def _take(events: Events, first: int, outputs: list[list[int]]) -> None:
    at = 0
    for key, count in zip(events.keys.tolist(), events.counts.tolist(), strict=True):
        outputs[key - first] += events.tokens[at : at + count].tolist()
        at += count


def _sleep_until(moment_ns: int) -> None:
    time.sleep(max(0, moment_ns - time.perf_counter_ns()) / 1e9)
