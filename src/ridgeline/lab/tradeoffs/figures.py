"""Figures: rows as plotly draws them. Colours of text and grid belong to the page, which knows light and dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

Row = dict[str, Any]

MIB = 1 << 20
TICKS_MS = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]
# Okabe and Ito's colours for the colour-blind, in shades that show on white and on near-black.
COLOURS = ("#0083c9", "#e0711a", "#009e73", "#cc66a3", "#b09600", "#8a6fdf", "#d6504a", "#3aa5a5")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down")
# For every eight lines, as then the colours come again.
DASHES = ("solid", "dash", "dot", "dashdot")
HOLLOW = ("", "-open", "-dot", "-open-dot")


def latency(rows: Sequence[Row], label: Callable[[Row], str]) -> go.Figure:
    """A line for each label, a point for each rate: tokens a second across, median latency up, p95 on hovering."""
    figure = go.Figure()
    for i, name in enumerate(dict.fromkeys(label(r) for r in rows)):
        line = sorted((r for r in rows if label(r) == name), key=lambda r: r["rate_per_s"])
        figure.add_scatter(
            x=[r["tokens_per_s"] for r in line],
            y=[r["e2e_p50_ms"] for r in line],
            name=name,
            mode="lines+markers",
            line={"color": COLOURS[i % len(COLOURS)], "width": 2, "dash": DASHES[i // len(COLOURS) % len(DASHES)]},
            marker={"symbol": MARKERS[i % len(MARKERS)] + HOLLOW[i // len(COLOURS) % len(HOLLOW)], "size": 9},
            customdata=[(r["rate_per_s"], r["e2e_p95_ms"], r["ttft_p50_ms"]) for r in line],
            hovertemplate=(
                "%{customdata[0]:.1f} requests/s offered<br>%{x:.0f} tokens/s<br>latency p50 %{y:.0f} ms, "
                "p95 %{customdata[1]:.0f} ms<br>TTFT p50 %{customdata[2]:.0f} ms"
            ),
        )
    figure.update_xaxes(title="output tokens a second", rangemode="tozero")
    figure.update_yaxes(title="median latency (ms)", type="log", tickvals=TICKS_MS)
    return _laid_out(figure)


def padding(rows: Sequence[Row]) -> go.Figure:
    figure = go.Figure()
    ordered = sorted(rows, key=lambda r: r["spread"])
    figure.add_scatter(
        x=[r["prompt_deviation"] for r in ordered],
        y=[r["wasted"] * 100 for r in ordered],
        mode="lines+markers+text",
        text=[f"{r['wasted'] * 100:.0f}" for r in ordered],
        textposition="top left",
        cliponaxis=False,
        name="padding",
        line={"color": COLOURS[0], "width": 2},
        marker={"size": 9},
        customdata=[(r["asked_low"], r["asked_high"], r["rows_a_batch"]) for r in ordered],
        hovertemplate=(
            "prompts of %{customdata[0]} to %{customdata[1]} tokens<br>%{y:.1f} of 100 positions are padding<br>"
            "%{customdata[2]:.1f} rows a batch<extra></extra>"
        ),
    )
    mean = sum(r["prompt_mean"] for r in rows) / len(rows)
    figure.update_xaxes(title=f"standard deviation of prompt lengths (tokens; the mean is {mean:.0f})")
    figure.update_yaxes(title="padding (% of computed positions)", rangemode="tozero")
    return _laid_out(figure).update_layout(showlegend=False)


def memory(rows: Sequence[Row]) -> go.Figure:
    """Measured lines, and what was planned as a line: bars of parts would hide how far they are apart."""
    figure = go.Figure()
    ordered = sorted(rows, key=lambda r: r["batch"])
    series: list[tuple[str, Callable[[Row], int], str]] = [
        ("planned: weights + workspace + KV cache", planned_bytes, "dash"),
        ("planned: workspace + KV cache", lambda r: r["workspace_bytes"] + r["kv_bytes"], "dash"),
        ("planned: KV cache", lambda r: r["kv_bytes"], "dot"),
    ]
    if all(None not in measured_bytes(r) for r in rows):
        series.append(("measured: all", lambda r: measured_bytes(r)[1] or 0, "solid"))
        series.append(("measured: taken by the batch", _taken_bytes, "solid"))
    for i, (name, of, dash) in enumerate(series):
        figure.add_scatter(
            x=[r["batch"] for r in ordered],
            y=[of(r) / MIB for r in ordered],
            name=name,
            mode="lines+markers",
            line={"color": COLOURS[i % len(COLOURS)], "width": 2, "dash": dash},
            marker={"symbol": MARKERS[i % len(MARKERS)], "size": 8},
            hovertemplate="%{x} at once<br>%{y:.1f} MiB",
        )
    figure.update_xaxes(title="sequences at once", rangemode="tozero")
    figure.update_yaxes(title="memory (MiB)", rangemode="tozero")
    return _laid_out(figure)


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


def _laid_out(figure: go.Figure) -> go.Figure:
    return figure.update_layout(
        template="none",
        height=460,
        margin={"l": 76, "r": 16, "t": 16, "b": 110},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 14},
        legend={"orientation": "h", "yanchor": "top", "y": -0.2, "x": 0},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
    )
