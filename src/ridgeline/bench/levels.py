"""Levels: what a number of requests in flight brought, and the table of all levels. Pure arithmetic on outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.console import Console
from rich.table import Table

from ridgeline.bench.measures import percentile
from ridgeline.bench.records import Outcome, ServerTimings, mean_rows, whole_batches
from ridgeline.bench.words import number


@dataclass(frozen=True, slots=True)
class Level:
    """One row of the benchmark, over the requests that were answered.

    wall_s: from the first sending to the last end. The `_ms` means of the server's phases are None where it reports
    no timings. batches: `8x3 4x1` is three batches of 8 and one of 4; `~7.8 rows` the mean rows of a step where the
    server refills its steps.
    """

    in_flight: int
    requests: int
    wall_s: float
    tokens: int
    latency_ms: float
    p50_ms: float
    p95_ms: float
    window_ms: float | None
    queued_ms: float | None
    compute_ms: float | None
    batches: str

    @property
    def tokens_per_s(self) -> float | None:
        return self.tokens / self.wall_s if self.wall_s > 0 else None

    @property
    def requests_per_s(self) -> float | None:
        return self.requests / self.wall_s if self.wall_s > 0 else None


def measured(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The answered requests that count: warm-up and failures left out."""
    return [o for o in outcomes if o.purpose == "measured" and o.reply]


def level_of(in_flight: int, outcomes: Sequence[Outcome]) -> Level | None:
    """The level's row; None where no request of it was answered."""
    answered = [o for o in measured(outcomes) if o.in_flight == in_flight]
    if not answered:
        return None
    latencies = sorted(o.latency_ms for o in answered)
    timings = [o.timings for o in answered if o.timings]
    return Level(
        in_flight=in_flight,
        requests=len(answered),
        wall_s=max(o.ended_s for o in answered) - min(o.sent_s for o in answered),
        tokens=sum(o.reply.tokens for o in answered if o.reply),
        latency_ms=fmean(latencies),
        p50_ms=percentile(latencies, 0.5),
        p95_ms=percentile(latencies, 0.95),
        window_ms=fmean(t.window_ms for t in timings) if timings else None,
        queued_ms=fmean(t.queued_ms for t in timings) if timings else None,
        compute_ms=fmean(t.compute_ms for t in timings) if timings else None,
        batches=batch_sizes(timings),
    )


def batch_sizes(timings: Sequence[ServerTimings]) -> str:
    sizes = Counter(batch.size for batch in whole_batches(timings))
    if sizes:
        return " ".join(f"{size}x{count}" for size, count in sorted(sizes.items(), reverse=True))
    rows = mean_rows(timings)
    return "-" if rows is None else f"~{rows:.1f} rows"


def one_at_a_time(outcomes: Sequence[Outcome]) -> float | None:
    """Tokens/s that `--batching one` would reach: the 1-in-flight requests with the time in the window taken out.

    tokens / sum of (total - window), both the server's. None without such requests.
    """
    alone = [o for o in measured(outcomes) if o.in_flight == 1 and o.timings]
    busy_ms = sum(o.timings.total_ms - o.timings.window_ms for o in alone if o.timings)
    tokens = sum(o.reply.tokens for o in alone if o.reply)
    return tokens / (busy_ms / 1e3) if busy_ms > 0 else None


def speed_up(level: Level, rate: float | None) -> float | None:
    """The level's tokens/s over `rate`; None where either is not known."""
    return level.tokens_per_s / rate if level.tokens_per_s is not None and rate else None


def level_table(levels: Sequence[Level], alone: float | None) -> Table:
    """alone: see one_at_a_time."""
    first = next((level for level in levels if level.in_flight == 1), None)
    # Narrow headings: with ordinary numbers the table fits into 80 columns.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("in\nflight", "reqs\n/s", "tokens\n/s", "mean\nms", "p50\nms", "p95\nms"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("window\nms", "queued\nms", "com-\npute\nms"):
        table.add_column(name, justify="right", no_wrap=True)
    # The only column that may take several lines, so that a narrower terminal cuts no number before it must.
    table.add_column("batches\nthat ran", overflow="fold", min_width=5)
    for name in ("times\n1 in\nflight", "times\none at\na\ntime*"):
        table.add_column(name, justify="right", no_wrap=True)
    for level in levels:
        table.add_row(
            str(level.in_flight),
            number(level.requests_per_s, 2),
            number(level.tokens_per_s, 1),
            *(number(ms) for ms in (level.latency_ms, level.p50_ms, level.p95_ms)),
            *(number(ms) for ms in (level.window_ms, level.queued_ms, level.compute_ms)),
            level.batches,
            number(speed_up(level, first.tokens_per_s if first else None), 2),
            number(speed_up(level, alone), 2),
        )
    return table


def print_levels(console: Console, levels: Sequence[Level], alone: float | None) -> None:
    """The table, its footnote, and the best level in a sentence."""
    console.print(level_table(levels, alone), highlight=False)
    if alone is None:
        return
    console.print(
        f"* tokens/s against the {alone:.1f} tokens/s that --batching one would reach here without any window: the "
        "1-in-flight requests with their time in the window taken out (tokens / sum of total - window). "
        "So no gain in this column is only the removed window. Latency is the client's; window, queued and compute "
        "are the server's means.",
        highlight=False,
        style="dim",
    )
    best = max(levels, key=lambda level: level.tokens_per_s or 0.0)
    gain = speed_up(best, alone)
    if gain is None:
        return
    console.print(
        f"Best: {best.in_flight} in flight, {gain:.2f} times one at a time; a request waits "
        f"{number(best.window_ms)} ms for the window and computes {number(best.compute_ms)} ms.",
        highlight=False,
    )
