"""Roofplot: a roofline as plotly draws it, to be hovered over and filtered. Knows points; knows no file.

Colour and symbol say the region, size the batch, a star a prefill. A click in the legend hides a region.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

import plotly.graph_objects as go

from ridgeline.bench.words import human_bytes
from ridgeline.core.cost import REGIONS
from ridgeline.lab.roofline.roofs import Kind, Line, Point, Roofline, rate_words
from ridgeline.lab.roofline.words import amount

MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "hexagon", "triangle-down")
# On white and on near-black, as in figures.py; brown where that has a red, which is the whole step's here.
COLOURS = ("#0083c9", "#e0711a", "#009e73", "#cc66a3", "#b09600", "#8a6fdf", "#a9744a", "#3aa5a5")
STEP_COLOUR, ROOF_COLOUR, SHEET_COLOUR = "#e5484d", "#6f7f92", "#a07cc5"
DASHES: dict[Kind, str] = {"level": "solid", "roof": "solid", "other roof": "dot", "datasheet": "dash"}
SMALLEST, GROWTH = 6.0, 2.0  # pixels: a mark at the smallest batch, and more at each next one


def colour_of(region: str) -> str:
    return COLOURS[REGIONS.index(region) % len(COLOURS)]


def size_of(roofline: Roofline, point: Point) -> float:
    """A prefill's mark is a star, which looks smaller than it is."""
    batches = sorted({p.batch for p in roofline.decode})
    if point.phase == "prefill":
        return SMALLEST + 8
    return SMALLEST + GROWTH * batches.index(point.batch)


def draw(roofline: Roofline) -> go.Figure:
    figure = go.Figure()
    _roofs(figure, roofline)
    _places(figure, roofline)
    _steps(figure, roofline)
    _ridges(figure, roofline)
    across = {"type": "log", "range": _logs(roofline.across), "dtick": 1, "exponentformat": "none"}
    figure.update_xaxes(title="arithmetic intensity (FLOP a byte)", **across)
    up = _logs(roofline.up)
    powers = [10.0**power for power in range(math.ceil(up[0]), math.floor(up[1]) + 1)]
    named = [rate_words(value).strip() for value in powers]
    figure.update_yaxes(title="arithmetic done (FLOP/s)", type="log", range=up, tickvals=powers, ticktext=named)
    return figure.update_layout(
        template="none",
        height=720,
        margin={"l": 84, "r": 16, "t": 16, "b": 150},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 14},
        legend={"orientation": "h", "yanchor": "top", "y": -0.12, "x": 0, "groupclick": "togglegroup"},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}, "align": "left"},
        hovermode="closest",
    )


def hover(point: Point) -> str:
    return (
        f"<b>{point.where}</b>, {point.of_step}<br>"
        f"{amount(point.intensity)} FLOP/byte: {point.flops / 1e6:,.1f} MFLOP, {human_bytes(point.bytes)}<br>"
        f"{point.flops_per_s / 1e9:,.1f} GFLOP/s, {point.share * 100:.0f} % of its roof<br>"
        f"floor {point.floor_ns / 1e3:,.1f} us, timed {point.timed_ns.median / 1e3:,.1f} us<br>"
        f"binds: {point.binds}"
    )


def _roofs(figure: go.Figure, roofline: Roofline) -> None:
    """Lines, with their names: those of diagonals turned, so that they do not cover each other."""
    for line in roofline.lines:
        colour = SHEET_COLOUR if line.kind == "datasheet" else ROOF_COLOUR
        figure.add_scatter(
            x=[line.begin[0], line.end[0]],
            y=[line.begin[1], line.end[1]],
            name=line.name,
            mode="lines",
            line={
                "color": colour,
                "width": 2.5 if line.kind in ("roof", "level") else 1.5,
                "dash": DASHES[line.kind],
            },
            hoverinfo="name",
            hoverlabel={"namelength": -1},
            showlegend=line.kind == "datasheet",
        )
        if line.label:
            figure.add_annotation(
                x=math.log10(line.end[0]),
                y=math.log10(line.end[1]),
                text=line.label,
                showarrow=False,
                font={"size": 12, "color": colour},
                **_name_place(line, roofline),
            )


def _name_place(line: Line, roofline: Roofline) -> dict[str, Any]:
    """Above the roofs that are higher than the run's own, below the others."""
    if line.flat:
        return {"xanchor": "right", "yanchor": "bottom" if line.end[1] > roofline.ridge[1] else "top"}
    return {"xanchor": "left", "yanchor": "bottom", "textangle": -40}


def _places(figure: go.Figure, roofline: Roofline) -> None:
    """A line for every place through its batches, a star for its prefill; one legend entry a region."""
    shown = set()
    places = sorted(roofline.places, key=lambda p: (REGIONS.index(p.region), p.place, p.phase))  # stable: by batch
    for (region, _, phase), points in groupby(places, key=lambda p: (p.region, p.place, p.phase)):
        line, colour = list(points), colour_of(region)
        figure.add_scatter(
            x=[p.intensity for p in line],
            y=[p.flops_per_s for p in line],
            name=region,
            legendgroup=region,
            showlegend=region not in shown,
            mode="lines+markers" if phase == "decode" else "markers",
            line={"color": colour, "width": 1},
            opacity=0.85,
            marker={
                "color": colour,
                "symbol": MARKERS[REGIONS.index(region) % len(MARKERS)] if phase == "decode" else "star",
                "size": [size_of(roofline, p) for p in line],
            },
            hovertext=[hover(p) for p in line],
            hoverinfo="text",
        )
        shown.add(region)


def _steps(figure: go.Figure, roofline: Roofline) -> None:
    for phase, name in (("decode", "decode step, by batch"), ("prefill", "prefill")):
        points = [point for point in roofline.steps if point.phase == phase]
        if not points:
            continue
        decode = phase == "decode"
        figure.add_scatter(
            x=[p.intensity for p in points],
            y=[p.flops_per_s for p in points],
            name=name,
            legendgroup=name,
            mode="lines+markers+text" if decode else "markers+text",
            text=[str(p.batch) if decode else f"prefill {p.tokens}" for p in points],
            textposition="bottom right" if decode else "bottom center",
            line={"color": STEP_COLOUR, "width": 3},
            marker={
                "color": STEP_COLOUR,
                "symbol": "circle" if decode else "star",
                "size": [size_of(roofline, p) + 3 for p in points],
                "line": {"width": 1, "color": "#ffffff"},
            },
            hovertext=[hover(p) for p in points],
            hoverinfo="text",
        )


def _ridges(figure: go.Figure, roofline: Roofline) -> None:
    """A mark on every level under the run's roof; memory's is the one that has a name."""
    peak = roofline.ridge[1]
    levels = roofline.ceilings.levels
    figure.add_scatter(
        x=[peak / level.read.median for level in levels],
        y=[peak] * len(levels),
        name="ridge points",
        mode="markers",
        marker={"symbol": "diamond-open", "size": 12, "color": ROOF_COLOUR, "line": {"width": 2}},
        hovertext=[
            f"ridge of {level.name} and {roofline.compute}: {amount(peak / level.read.median)} FLOP/byte"
            for level in levels
        ],
        hoverinfo="text",
    )
    (x, y), (name_x, name_y) = roofline.ridge, roofline.ridge_name
    figure.add_scatter(
        x=[x, name_x], y=[y, name_y], mode="lines", line={"color": ROOF_COLOUR, "width": 1}, hoverinfo="skip",
        showlegend=False, name="to the ridge's name",
    )  # fmt: skip
    figure.add_annotation(
        x=math.log10(name_x),
        y=math.log10(name_y),
        text=f"<b>ridge: {amount(x)} FLOP/byte</b><br>left of it memory binds,<br>right of it the multipliers do",
        showarrow=False,
        xanchor="left",
        yanchor="bottom",
        align="left",
        font={"size": 12},
    )


def _logs(span: tuple[float, float]) -> list[float]:
    return [math.log10(value) for value in span]
