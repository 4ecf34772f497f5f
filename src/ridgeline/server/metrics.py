"""Metrics: what /metrics tells, in Prometheus' format. Knows counts and times; knows no request's text.

Names that begin with `vllm:` mean what they mean there, so that existing dashboards work; ours begin with `ridgeline_`.
docs/metrics.md is the table. Nothing here runs once a token: a step, a first token, an end or a scrape is what costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from ridgeline.core.types import Timings
from ridgeline.engine.messages import Counters
from ridgeline.server.admission import Admission
from ridgeline.server.limits import Limits
from ridgeline.server.service import Service

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000, 100_000)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# Counters of the engine that only grow: field, name, what it is.
_ENGINE = (
    ("preemptions", "vllm:num_preemptions", "Requests that lost their blocks to others and were computed again."),
    ("prefix_queried", "vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache."),
    ("prefix_hit", "vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache."),
    ("steps", "ridgeline_steps", "Steps of the engine."),
    ("positions", "ridgeline_positions", "Token positions that the device processed, padding included."),
    ("padding", "ridgeline_padding_positions", "Positions that were padding or empty rows."),
    ("dropped_tokens", "ridgeline_dropped_tokens", "Tokens made for requests that had ended (stop strings, aborts)."),
)
_NOTHING = Counters()


class Totals:
    """Counters over all lives of the engine: each life begins at 0, a total never falls."""

    def __init__(self) -> None:
        self._before = dict.fromkeys((row[0] for row in _ENGINE), 0)

    def end(self, counters: Counters) -> None:
        """A life has ended with these; what is counted from now on belongs to the next one."""
        self._before = self.with_life(counters)

    def with_life(self, counters: Counters) -> dict[str, int]:
        """The totals, of the lives that ended and the one that has counted so far."""
        return {name: before + getattr(counters, name) for name, before in self._before.items()}


class Tally(NamedTuple):
    """Sums since the server began. rows: over all steps. prompt_tokens: of requests that began. tokens: made."""

    rows: int = 0
    tokens: int = 0
    prompt_tokens: int = 0


class Metrics:
    """One for each application, with a registry of its own."""

    def __init__(self, admission: Admission, limits: Limits, now: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry()
        self._admission, self._limits = admission, limits
        self._service: Service | None = None
        self._totals = Totals()
        self.tally = Tally()
        self._histograms()
        model, own = ["model_name"], self.registry
        self._prompt = Counter("vllm:prompt_tokens", "Prompt tokens of requests that began.", model, registry=own)
        self._made = Counter("vllm:generation_tokens", "Tokens that the engine made.", model, registry=own)
        self._success = Counter(
            "vllm:request_success", "Sequences that ended, by how.", [*model, "finished_reason"], registry=own
        )
        self._refused = Counter("ridgeline_refused", "Requests that were refused, by why.", ["reason"], registry=own)
        self._answers = Counter("ridgeline_http_responses", "Answers by status.", ["status"], registry=own)
        self._restarts = Counter("ridgeline_engine_restarts", "Times the engine was started again.", registry=own)
        Gauge("ridgeline_start_time_seconds", "When the server started, Unix time.", registry=own).set(now())
        own.register(self)

    def watch(self, service: Service) -> None:
        """The engine is ready; called again after each time it was restored."""
        if self._service is not None:
            self._totals.end(self._service.engine.counters)
            self._restarts.inc()
        self._service = service
        service.engine.on_step = self._stepped

    def began(self, prompt_tokens: int) -> None:
        self._prompt.labels(self._name).inc(prompt_tokens)
        self.tally = Tally(self.tally.rows, self.tally.tokens, self.tally.prompt_tokens + prompt_tokens)

    def ended(self, reason: str, completion_tokens: int) -> None:
        self._success.labels(self._name, reason).inc()
        self._completion_length.labels(self._name).observe(completion_tokens)

    def timed(self, timings: Timings, arrived_ns: int, completion_tokens: int) -> None:
        """Times of a sequence. arrived_ns: of its HTTP request, on the same clock."""
        t, name = timings, self._name
        self._whole.labels(name).observe((t.finished_ns - arrived_ns) / 1e9)
        if t.admitted_ns:
            self._queue.labels(name).observe((t.admitted_ns - t.arrival_ns) / 1e9)
        if not t.first_token_ns:
            return
        self._first.labels(name).observe((t.first_token_ns - arrived_ns) / 1e9)
        self._prefill.labels(name).observe((t.first_token_ns - t.admitted_ns) / 1e9)
        decode_s = (t.finished_ns - t.first_token_ns) / 1e9
        self._decode.labels(name).observe(decode_s)
        if completion_tokens > 1:
            self._per_token.labels(name).observe(decode_s / (completion_tokens - 1))

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def answered(self, status: int) -> None:
        self._answers.labels(str(status)).inc()

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format that the Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def collect(self) -> Iterator[Metric]:
        """What is read when somebody asks; prometheus_client calls it."""
        yield _gauge("ridgeline_queued_requests", "Sequences without a first token.", self._admission.queued_requests)
        yield _gauge("ridgeline_queued_requests_limit", "At most.", self._limits.queued_requests)
        yield _gauge("ridgeline_queued_tokens", "Prompt tokens of those.", self._admission.queued_tokens)
        yield _gauge("ridgeline_queued_tokens_limit", "At most.", self._limits.queued_tokens)
        if self._service is None:
            return
        engine, blocks = self._service.engine, self._service.info.num_blocks
        counters = engine.counters
        totals = self._totals.with_life(counters)
        now = counters if engine.failure is None else _NOTHING
        for name, help, value in (
            ("vllm:num_requests_running", "Sequences in a slot.", now.running),
            ("vllm:num_requests_waiting", "Sequences in the engine's queue.", now.waiting),
            ("vllm:kv_cache_usage_perc", "Share of the KV cache's blocks in use; 1 is all.", now.kv_blocks / blocks),
        ):
            gauge = GaugeMetricFamily(name, help, labels=["model_name"])
            gauge.add_metric([self._name], value)
            yield gauge
        for field, name, help in _ENGINE:
            counter = CounterMetricFamily(name, help, labels=["model_name"])
            counter.add_metric([self._name], totals[field])
            yield counter

    def describe(self) -> list[Metric]:
        """Nothing is known before the engine is ready; this keeps the registry from collecting when it registers."""
        return []

    @property
    def _name(self) -> str:
        return "" if self._service is None else self._service.name

    def _stepped(self, rows: int, tokens: int) -> None:
        name = self._name
        self._rows.labels(name).observe(rows)
        self._made.labels(name).inc(tokens)
        self.tally = Tally(self.tally.rows + rows, self.tally.tokens + tokens, self.tally.prompt_tokens)

    def _histograms(self) -> None:
        def histogram(name: str, help: str, buckets: tuple[Any, ...] = _SECONDS) -> Histogram:
            return Histogram(name, help, ["model_name"], registry=self.registry, buckets=buckets)

        self._first = histogram("vllm:time_to_first_token_seconds", "From the HTTP request to its first token.")
        self._per_token = histogram(
            "vllm:request_time_per_output_token_seconds", "Mean time between a sequence's tokens, one a sequence."
        )
        self._whole = histogram("vllm:e2e_request_latency_seconds", "From the HTTP request to the end of a sequence.")
        self._queue = histogram("vllm:request_queue_time_seconds", "From the engine's queue to a slot.")
        self._prefill = histogram("vllm:request_prefill_time_seconds", "From a slot to the first token.")
        self._decode = histogram("vllm:request_decode_time_seconds", "From the first token to the last.")
        self._completion_length = histogram("vllm:request_generation_tokens", "Tokens a sequence got.", _TOKENS)
        self._rows = histogram("ridgeline_step_rows", "Sequences in a step of the engine.", _ROWS)


def _gauge(name: str, help: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help, value=value)
