"""Roofprint: a roofline as a picture that stands still, for a README. Knows points; knows no browser.

The same marks as on the page (server/web/roofs.js), on white, legible at 900 pixels across.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter

from ridgeline.core.cost import REGIONS
from ridgeline.lab.roofline.page import STEP_MORE, size_of
from ridgeline.lab.roofline.roofs import Kind, Line, Roofline
from ridgeline.lab.roofline.words import amount

MARKERS = ("o", "s", "D", "^", "X", "P", "h", "v")  # as this library calls the page's
COLOURS = ("#0083c9", "#e0711a", "#009e73", "#cc66a3", "#b09600", "#8a6fdf", "#a9744a", "#3aa5a5")
STEP_COLOUR, ROOF_COLOUR, SHEET_COLOUR = "#e5484d", "#6f7f92", "#a07cc5"
STYLES: dict[Kind, str] = {"level": "-", "roof": "-", "other roof": ":", "datasheet": "--"}
_INCHES, _DOTS = (9.0, 6.2), 200
_TEXT = "#1c2430"


def save(roofline: Roofline, paths: tuple[Path, ...]) -> None:
    """One file a path; its ending says which kind. Raises OSError."""
    # The salt makes the ids of two drawings of one run the same, so that a file in git changes only with its numbers.
    with mpl.rc_context({"font.size": 10, "svg.hashsalt": "ridgeline", "text.color": _TEXT}):
        figure = _drawn(roofline)
        for path in paths:
            undated = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(path, dpi=_DOTS, metadata=undated, facecolor="white")


def _drawn(roofline: Roofline) -> Figure:
    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlim=roofline.across, ylim=roofline.up)
    axes.set_xlabel("arithmetic intensity (FLOP a byte)")
    axes.set_ylabel("arithmetic done (FLOP/s)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.grid(which="major", color="#e3e8ee", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _roofs(axes, roofline)
    _places(axes, roofline)
    _steps(axes, roofline)
    _ridge(axes, roofline)
    axes.set_title(_title(roofline), loc="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def _title(roofline: Roofline) -> str:
    formats = roofline.ledger.formats
    return f"{roofline.ledger.model}, weights of {formats.weight_bits:g} bits, on {roofline.ceilings.device}"


def _roofs(axes: mpl.axes.Axes, roofline: Roofline) -> None:
    for line in roofline.lines:
        colour = SHEET_COLOUR if line.kind == "datasheet" else ROOF_COLOUR
        width = 1.8 if line.kind in ("roof", "level") else 1.1
        axes.plot(
            *zip(line.begin, line.end, strict=True),
            color=colour,
            linestyle=STYLES[line.kind],
            linewidth=width,
            label=line.name if line.kind == "datasheet" else None,
        )
        if line.label:
            axes.annotate(
                line.label,
                line.end,
                textcoords="offset points",
                fontsize=8,
                color=colour,
                **_name_place(line, roofline),
            )


def _name_place(line: Line, roofline: Roofline) -> dict[str, Any]:
    """Above the roofs that are higher than the run's own, below the others."""
    if not line.flat:
        return {"xytext": (-2, 4), "ha": "left", "va": "bottom", "rotation": 40, "rotation_mode": "anchor"}
    if line.end[1] > roofline.ridge[1]:
        return {"xytext": (-4, 2), "ha": "right", "va": "bottom"}
    return {"xytext": (-4, -3), "ha": "right", "va": "top"}


def _places(axes: mpl.axes.Axes, roofline: Roofline) -> None:
    shown = set()
    places = sorted(roofline.places, key=lambda p: (REGIONS.index(p.region), p.place, p.phase))  # stable: by batch
    for (region, _, phase), points in groupby(places, key=lambda p: (p.region, p.place, p.phase)):
        line, colour = list(points), COLOURS[REGIONS.index(region) % len(COLOURS)]
        x, y = [p.intensity for p in line], [p.flops_per_s for p in line]
        if phase == "decode":
            axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.7)
        axes.scatter(
            x,
            y,
            s=[_area(size_of(roofline, p)) for p in line],
            color=colour,
            marker=MARKERS[REGIONS.index(region) % len(MARKERS)] if phase == "decode" else "*",
            alpha=0.85,
            linewidths=0,
            label=None if region in shown else region,
            zorder=3,
        )
        shown.add(region)


def _steps(axes: mpl.axes.Axes, roofline: Roofline) -> None:
    for phase, name in (("decode", "decode step, by batch"), ("prefill", "prefill (stars)")):
        points = [point for point in roofline.steps if point.phase == phase]
        if not points:
            continue
        x, y = [p.intensity for p in points], [p.flops_per_s for p in points]
        if phase == "decode":
            axes.plot(x, y, color=STEP_COLOUR, linewidth=2, zorder=4)
        sizes = [_area(size_of(roofline, p) + STEP_MORE) for p in points]
        marker = "o" if phase == "decode" else "*"
        axes.scatter(
            x, y, s=sizes, color=STEP_COLOUR, marker=marker, edgecolors="white", linewidths=0.8, label=name, zorder=5
        )
        for point in points:
            axes.annotate(
                str(point.batch) if phase == "decode" else f"prefill {point.tokens}",
                (point.intensity, point.flops_per_s),
                xytext=(5, -5) if phase == "decode" else (0, -8),
                textcoords="offset points",
                ha="left" if phase == "decode" else "center",
                va="top",
                fontsize=9,
                fontweight="bold",
                zorder=6,
            )


def _ridge(axes: mpl.axes.Axes, roofline: Roofline) -> None:
    x, y = roofline.ridge
    axes.scatter([x], [y], s=70, marker="D", facecolors="none", edgecolors=ROOF_COLOUR, zorder=6)
    axes.annotate(
        f"ridge point: {amount(x)} FLOP/byte\nleft of it memory binds,\nright of it the multipliers do",
        (x, y),
        xytext=roofline.ridge_name,
        textcoords="data",
        fontsize=9,
        va="bottom",
        arrowprops={"arrowstyle": "-", "color": ROOF_COLOUR, "relpos": (0, 0)},
    )


def _area(pixels: float) -> float:
    """Points squared of a mark so many pixels across, at 96 pixels an inch."""
    return (pixels * 0.75) ** 2
