"""Figures: rows as lines of the page. Knows what stands across and up; knows no colour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from ridgeline.core.report import Lines, Mark, Series

Row = dict[str, Any]

MIB = 1 << 20


def latency(rows: Sequence[Row], label: Callable[[Row], str]) -> Lines:
    """A line for each label, a point for each rate: tokens a second across, median latency up, p95 for who points."""
    series = []
    for name in dict.fromkeys(label(r) for r in rows):
        line = sorted((r for r in rows if label(r) == name), key=lambda r: r["rate_per_s"])
        series.append(Series(name, tuple(Mark(r["tokens_per_s"], r["e2e_p50_ms"], _offered(r)) for r in line)))
    return Lines("output tokens a second", "median latency (ms)", tuple(series), log=True)


def _offered(row: Row) -> str:
    said = (
        f"{row['rate_per_s']:.1f} requests/s offered\n{row['tokens_per_s']:.0f} tokens/s\n"
        f"latency p50 {row['e2e_p50_ms']:.0f} ms, p95 {row['e2e_p95_ms']:.0f} ms"
    )
    first = row["ttft_p50_ms"]
    return said if first is None else f"{said}\nTTFT p50 {first:.0f} ms"


def padding(rows: Sequence[Row]) -> Lines:
    mean = sum(r["prompt_mean"] for r in rows) / len(rows)
    marks = (
        Mark(
            r["prompt_deviation"],
            r["wasted"] * 100,
            f"prompts of {r['asked_low']} to {r['asked_high']} tokens\n{r['wasted'] * 100:.1f} of 100 positions are "
            f"padding\n{r['rows_a_batch']:.1f} rows a batch",
            label=f"{r['wasted'] * 100:.0f}",
        )
        for r in sorted(rows, key=lambda r: r["spread"])
    )
    across = f"standard deviation of prompt lengths (tokens; the mean is {mean:.0f})"
    return Lines(across, "padding (% of computed positions)", (Series("padding", tuple(marks)),))


def memory(rows: Sequence[Row]) -> Lines:
    """Measured lines, and what was planned as a line: bars of parts would hide how far they are apart."""
    wanted: list[tuple[str, Callable[[Row], int], Literal["", "dash", "dot"]]] = [
        ("planned: weights + workspace + KV cache", planned_bytes, "dash"),
        ("planned: workspace + KV cache", lambda r: r["workspace_bytes"] + r["kv_bytes"], "dash"),
        ("planned: KV cache", lambda r: r["kv_bytes"], "dot"),
    ]
    if all(None not in measured_bytes(r) for r in rows):
        wanted.append(("measured: all", lambda r: measured_bytes(r)[1] or 0, ""))
        wanted.append(("measured: taken by the batch", _taken_bytes, ""))
    ordered = sorted(rows, key=lambda r: r["batch"])
    series = []
    for name, of, dash in wanted:
        marks = (Mark(r["batch"], of(r) / MIB, f"{r['batch']} at once\n{of(r) / MIB:.1f} MiB") for r in ordered)
        series.append(Series(name, tuple(marks), dash))
    return Lines("sequences at once", "memory (MiB)", tuple(series))


def planned_bytes(row: Row) -> int:
    return int(row["weights_bytes"] + row["workspace_bytes"] + row["kv_bytes"])


def measured_bytes(row: Row) -> tuple[int | None, int | None]:
    """When ready and after the batch, of the memory that the plan is about; None where the driver does not tell."""
    if row["on_gpu"]:
        return row["ready_gpu_bytes"], row["gpu_bytes"]
    return row["ready_bytes"], row["loaded_bytes"]


def _taken_bytes(row: Row) -> int:
    ready, loaded = measured_bytes(row)
    return (loaded or 0) - (ready or 0)
