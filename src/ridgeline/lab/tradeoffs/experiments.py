"""Experiments: the three trade-offs of batching, each a list of rows. Starts servers in turn; draws nothing.

Rows are plain mappings, so that what is measured, written to the run file and drawn is one thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from statistics import fmean, pstdev
from typing import Any

from rich.console import Console

from ridgeline.bench.fleet import Load, send
from ridgeline.bench.lengths import Lengths
from ridgeline.bench.measures import measure
from ridgeline.bench.order import Order
from ridgeline.bench.records import mean_rows, whole_batches
from ridgeline.bench.serve import Session, prepare
from ridgeline.bench.share import Share, Target
from ridgeline.bench.workload import Workload
from ridgeline.core.errors import ConfigError, Unavailable
from ridgeline.lab.tradeoffs.children import Served, serving
from ridgeline.lab.tradeoffs.footprint import gpu_bytes, resident_bytes
from ridgeline.lab.tradeoffs.grid import ALONE, WINDOWED, Grid, Setting

Row = dict[str, Any]
LINES_TOLD = 5
# A server that answers less than this part of what is offered is full; higher rates would only lengthen its queue.
FULL_SHARE = 0.8
ALONE_REQUESTS = 8
PADDING_LIMIT, PADDING_WINDOW_MS, PADDING_NEW = 8, 50, 8
MEMORY_LEN, MEMORY_IN, MEMORY_NEW = 256, 224, 24
# Token ids, because their number is exact; every vocabulary has as many as a byte has values.
IDS = Workload(kind="uniform", prompt_kind="ids", vocab=256)
MIXED = replace(IDS, input_len=Lengths(16, 64), output_len=Lengths(8, 32))


class Interrupted(Exception):
    """Ctrl-C during a load; what was measured before stays."""


@dataclass(slots=True)
class Results:
    """What has been measured so far."""

    model: Row = field(default_factory=dict)
    latency: list[Row] = field(default_factory=list)
    padding: list[Row] = field(default_factory=list)
    memory: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bench:
    """Runs loads against children. model_flags, environment: for every server. show: what goes on, and steps done."""

    model_flags: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    seed: int
    show: Callable[[str, int], None]

    def serving(self, flags: Sequence[str]) -> AbstractContextManager[Served]:
        return serving([*self.model_flags, *flags], self.environment)

    def order(self, url: str, workload: Workload, **load: Any) -> Order:
        return Order(
            url=url, workload=workload, extra_body={"timings": True}, seed=self.seed, timeout_s=60.0, **load
        )  # fmt: skip

    def meet(self, served: Served, order: Order, results: Results) -> Target:
        """Ready, and warm where the order says so."""
        session = Session()
        try:
            targets = prepare(order, session, Console(quiet=True))
        except Unavailable as error:
            raise Unavailable(f"{error}: {' / '.join(served.lines[-LINES_TOLD:])}") from error
        results.model = session.models[0]
        return targets[0]

    def send(self, order: Order, target: Target) -> Load:
        load = send(Share(order, target, order.seed, tokens_per_word=1.0), lambda _ended: None)
        if load.interrupted:
            raise Interrupted
        return load


def latency(bench: Bench, grid: Grid, results: Results) -> None:
    """Latency against throughput over the request rate, for each policy, window and limit of the batch."""
    alone_per_s = 1.0
    for setting in grid.settings:
        bench.show(f"latency: {setting.name}", 0)
        with bench.serving(setting.flags) as served:
            probe = bench.order(served.url, MIXED, concurrency=1, num_requests=ALONE_REQUESTS)
            target = bench.meet(served, probe, results)
            if setting.batching == ALONE:
                found = measure(bench.send(probe, target).outcomes)
                if found is None or not found.requests_per_s:
                    raise Unavailable("no request was answered: the rates cannot be set")
                alone_per_s = found.requests_per_s
            for done, part in enumerate(grid.rates, 1):
                rate = part * alone_per_s
                many = max(4, round(rate * grid.load_s))
                order = bench.order(served.url, MIXED, request_rate=rate, num_requests=many)
                row = latency_row(setting, rate, bench.send(order, target))
                results.latency.append(row)
                if row["is_full"]:
                    bench.show(f"latency: {setting.name}", len(grid.rates) - done + 1)
                    break
                bench.show(f"latency: {setting.name}", 1)


def latency_row(setting: Setting, rate: float, load: Load) -> Row:
    m = measure(load.outcomes)
    assert m is not None
    timings = [o.timings for o in load.outcomes if o.timings]
    span_s = max(o.planned_s or 0.0 for o in load.outcomes)
    offered = (m.requests - 1) / span_s if span_s > 0 else rate
    return {
        "setting": setting.name,
        "batching": setting.batching,
        "window_ms": setting.window_ms,
        "limit": setting.limit,
        "rate_per_s": rate,
        "requests": m.requests,
        "answered": m.answered,
        "requests_per_s": m.requests_per_s,
        "tokens_per_s": m.tokens_per_s,
        "ttft_p50_ms": m.ttft_ms.p50 if m.ttft_ms else None,
        "tpot_p50_ms": m.tpot_ms.p50 if m.tpot_ms else None,
        "e2e_p50_ms": m.e2e_ms.p50 if m.e2e_ms else None,
        "e2e_p95_ms": m.e2e_ms.p95 if m.e2e_ms else None,
        "rows_a_step": mean_rows(timings),
        "is_full": (m.requests_per_s or 0.0) < FULL_SHARE * offered,
        "client_bound": load.client_bound,
    }


def padding(bench: Bench, grid: Grid, results: Results) -> None:
    """Share of computed positions that were padding, against the spread of prompt lengths around one mean."""
    bench.show("padding", 0)
    flags = [*Setting(WINDOWED, PADDING_WINDOW_MS, PADDING_LIMIT).flags, "--packing", "padded"]
    with bench.serving(flags) as served:
        workload = replace(IDS, output_len=Lengths(PADDING_NEW, PADDING_NEW))
        load = {"concurrency": PADDING_LIMIT, "num_requests": grid.padding_requests}
        target = bench.meet(served, bench.order(served.url, workload, **load), results)
        for low, high in grid.spreads:
            order = bench.order(served.url, replace(workload, input_len=Lengths(low, high)), **load)
            results.padding.append(padding_row(low, high, bench.send(order, target)))
            bench.show(f"padding: prompts of {low} to {high} tokens", 1)


def padding_row(low: int, high: int, load: Load) -> Row:
    replies = [o.reply for o in load.outcomes if o.reply]
    batches = whole_batches(r.timings for r in replies if r.timings)
    if not batches:
        raise Unavailable("the server reported no batches: padding cannot be measured")
    lengths = [r.prompt_tokens for r in replies]
    positions, padded = sum(b.positions for b in batches), sum(b.padding for b in batches)
    return {
        "asked_low": low,
        "asked_high": high,
        "prompt_mean": fmean(lengths),
        "prompt_deviation": pstdev(lengths),
        "spread": pstdev(lengths) / fmean(lengths),
        "batches": len(batches),
        "rows_a_batch": fmean(b.size for b in batches),
        "positions": positions,
        "padding": padded,
        "wasted": padded / positions,
    }


def is_on_gpu(model: Row) -> bool:
    """Whether the server's plan is of another memory than its processes' own."""
    facts = model.get("ridgeline")
    return isinstance(facts, dict) and str(facts.get("device", "cpu")).split(":")[0] != "cpu"


def memory(bench: Bench, grid: Grid, results: Results) -> None:
    """What the server's processes hold once a batch of the size it was planned for has run, against the plan."""
    workload = replace(IDS, input_len=Lengths(MEMORY_IN, MEMORY_IN), output_len=Lengths(MEMORY_NEW, MEMORY_NEW))
    for batch in grid.batches:
        bench.show(f"memory: {batch} at once", 0)
        flags = ["--batching", "continuous", "--max-num-seqs", str(batch), "--max-model-len", str(MEMORY_LEN)]
        with bench.serving(flags) as served:
            order = replace(
                bench.order(served.url, workload, concurrency=batch, num_requests=batch), warmup_requests=0
            )  # fmt: skip
            target = bench.meet(served, order, results)
            ready, ready_gpu = resident_bytes(served.pid), gpu_bytes(served.pid)
            load = bench.send(order, target)
            m, planned = measure(load.outcomes), served.planned
            if planned is None:
                raise ConfigError("the server announced no memory plan")
            results.memory.append(
                {
                    "batch": batch,
                    "answered": m.answered if m else 0,
                    "ready_bytes": ready,
                    "loaded_bytes": resident_bytes(served.pid),
                    "ready_gpu_bytes": ready_gpu,
                    "gpu_bytes": gpu_bytes(served.pid),
                    "on_gpu": is_on_gpu(results.model),
                    "weights_bytes": planned.weights,
                    "workspace_bytes": planned.workspace,
                    "kv_bytes": planned.kv_cache,
                }
            )
        bench.show(f"memory: {batch} at once", 1)
