"""Batches: the table of every batch that ran, and in plain sentences what is seen in it. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rich import box
from rich.console import Console
from rich.table import Table

from ridgeline.bench.records import Outcome, ServedBatch, ServerTimings, mean_rows, whole_batches
from ridgeline.bench.timeline import ROUNDING_MS, batch_ends
from ridgeline.bench.words import human_bytes, listed, percent, plural

# More sizes than this are given as a range.
SIZES_TOLD = 8
CLOSED_BECAUSE = {
    "window": "the window's time was up",
    "full": "it had as many requests as a batch may have",
    "ready": "it waited for nobody",
}


def batch_table(batches: Sequence[ServedBatch]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("batch", "size"):
        table.add_column(name, justify="right")
    table.add_column("closed by")
    for name in ("waited", "padded length", "steps", "wasted", "KV cache"):
        table.add_column(name, justify="right")
    for i, batch in enumerate(batches):
        table.add_row(
            str(i + 1),
            str(batch.size),
            batch.closed,
            f"{batch.wait_ms:.1f} ms",
            str(batch.padded_length),
            str(batch.steps),
            percent(batch.padding, batch.positions),
            human_bytes(batch.kv_bytes),
        )
    return table


def print_batches(console: Console, timings: Sequence[ServerTimings]) -> None:
    """The table, or why there is none: a server that refills every step has no batches to list."""
    batches = whole_batches(timings)
    if not batches:
        rows = mean_rows(timings) or 0.0
        console.print(
            "No fixed batches: this server lets requests join and leave at every step. "
            f"A step held {rows:.1f} rows on average, as the requests saw it.",
            highlight=False,
        )
        return
    console.print(batch_table(batches), highlight=False)
    console.print()
    reasons = [
        f"{word}: {CLOSED_BECAUSE[word]}" for word in sorted({b.closed for b in batches} & CLOSED_BECAUSE.keys())
    ]
    if reasons:
        console.print(f"closed by {'; '.join(reasons)}", highlight=False, style="dim")


def summary(outcomes: Sequence[Outcome]) -> str:
    """Of the requests that were answered: total time, tokens a second, mean latency, share of the window."""
    answered = [o for o in outcomes if o.reply]
    tokens = sum(o.reply.tokens for o in answered if o.reply)
    wall_s = max(o.ended_s for o in answered) - min(o.sent_s for o in answered)
    latency_ms = sum(o.latency_ms for o in answered) / len(answered)
    rate = f"{tokens / wall_s:.1f} tokens/s" if wall_s > 0 else "no time at all"
    parts = [
        f"{plural(len(answered), 'request')} and {plural(tokens, 'token')} in {wall_s:.2f} s",
        rate,
        f"mean latency {latency_ms:.0f} ms",
    ]
    timings = [o.timings for o in answered if o.timings]
    if timings:
        window_ms, total_ms = sum(t.window_ms for t in timings), sum(t.total_ms for t in timings)
        parts.append(f"{percent(window_ms, total_ms)} of it waiting for the window")
    return "; ".join(parts)


def seen(timings: Sequence[ServerTimings]) -> list[str]:
    """What the batches show, as sentences with their numbers; nothing for a server without batches."""
    batches = whole_batches(timings)
    if not batches:
        return []
    positions, padding = sum(b.positions for b in batches), sum(b.padding for b in batches)
    sizes = [b.size for b in batches]
    if len(sizes) == 1:
        told = f"One batch of {sizes[0]}"
    elif len(sizes) <= SIZES_TOLD:
        told = f"Batches of {listed(sizes)}"
    else:
        told = f"{len(sizes)} batches of {min(sizes)} to {max(sizes)}"
    sentences = [f"{told}; {percent(padding, positions)} of the computed positions were padding."]
    ends = batch_ends(timings)
    idle_ms = [(ends[t.batch.serial] - t.finished_s) * 1e3 for t in timings if t.batch]
    early = [ms for ms in idle_ms if ms > ROUNDING_MS]
    if early:
        sentences.append(
            f"{len(early)} of {plural(len(timings), 'request')} ended before their batch did, "
            f"on average {fmean(early):.0f} ms earlier; their rows ran empty for that long."
        )
    return sentences
