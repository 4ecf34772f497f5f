"""Page: what a roofline says, as the page draws it. Knows points and sentences; knows no file and no colour.

A region has a colour and a sign of its own, its number; size says the batch, a star a prefill.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ridgeline.bench.words import human_bytes
from ridgeline.core.cost import REGIONS
from ridgeline.core.report import Group, Mark, Report, Roof, Roofs, Section
from ridgeline.lab.roofline.roofs import Line, Point, Roofline
from ridgeline.lab.roofline.words import amount, readings, ridge_words, warnings

HEADINGS = (
    "operation", "step", "FLOP/byte", "GFLOP/s", "of its roof", "MFLOP", "bytes", "floor us", "timed us", "binds",
)  # fmt: skip
SMALLEST, GROWTH = 6.0, 2.0  # pixels: a mark at the smallest batch, and more at each next one
STEP_MORE = 3.0  # pixels: a whole step's mark


def told(roofline: Roofline) -> Report:
    ledger, ceilings = roofline.ledger, roofline.ceilings
    context = max((step.context for step in ledger.steps if step.phase == "decode"), default=None)
    reads = f"; decode at a context of {context} tokens" if context is not None else ""
    remarks = [f"Ceilings: {note}" for note in ceilings.notes]
    if ceilings.datasheet is not None:
        remarks.append(
            f"Dashed lines marked datasheet are the vendor's figures for {ceilings.datasheet.name} "
            f"({ceilings.datasheet.source}); nothing is divided by them."
        )
    if ledger.interrupted:
        remarks.append("The run was interrupted.")
    subtitle = (
        f"{ledger.model} ({ledger.formats.weight_bits:g}-bit weights, {ledger.formats.compute} arithmetic) on "
        f"{ceilings.device}{reads}."
    )
    return Report("Roofline", subtitle, (_section(roofline),), warnings(roofline), remarks)


def _section(roofline: Roofline) -> Section:
    points = (*roofline.steps, *roofline.places)
    return Section(
        title="Which ceiling is over each operation?",
        question=(
            "Across: how much arithmetic an operation does for each byte it must move, from shapes. Up: how much of it "
            "was done in a second, timed. Diagonals are measured bandwidths, flat lines measured rates of matrix "
            "products. Nothing gets above the diagonal of the level its bytes come from, nor above the roof of its "
            "number format; the distance below is what could be gained. "
            "Larger marks are larger batches, stars are a prefill; a click in the legend hides a region. The "
            f"{ridge_words(roofline)}."
        ),
        figure=figure(roofline),
        readings=readings(roofline),
        headings=HEADINGS,
        rows=tuple(map(row, points)),
    )


def row(point: Point) -> tuple[str, ...]:
    return (
        point.where,
        point.of_step,
        amount(point.intensity),
        f"{point.flops_per_s / 1e9:,.2f}",
        f"{point.share * 100:.1f} %",
        f"{point.flops / 1e6:,.2f}",
        human_bytes(point.bytes),
        f"{point.floor_ns / 1e3:,.1f}",
        f"{point.timed_ns.median / 1e3:,.1f}",
        point.binds,
    )


def figure(roofline: Roofline) -> Roofs:
    peak = roofline.ridge[1]
    ridges = (
        Mark(
            peak / level.read.median,
            peak,
            f"ridge of {level.name} and {roofline.compute}: {amount(peak / level.read.median)} FLOP/byte",
        )
        for level in roofline.ceilings.levels
    )
    named = f"ridge: {amount(roofline.ridge[0])} FLOP/byte\nleft of it memory binds,\nright of it the multipliers do"
    return Roofs(
        across=roofline.across,
        up=roofline.up,
        roofs=tuple(_roof(line, roofline) for line in roofline.lines),
        groups=(*_places(roofline), *_steps(roofline)),
        ridges=tuple(ridges),
        named=(roofline.ridge, roofline.ridge_name, named),
    )


def size_of(roofline: Roofline, point: Point) -> float:
    """A prefill's mark is a star, which looks smaller than it is."""
    batches = sorted({p.batch for p in roofline.decode})
    if point.phase == "prefill":
        return SMALLEST + 8
    return SMALLEST + GROWTH * batches.index(point.batch)


def hint(point: Point) -> str:
    return (
        f"{point.where}, {point.of_step}\n"
        f"{amount(point.intensity)} FLOP/byte: {point.flops / 1e6:,.1f} MFLOP, {human_bytes(point.bytes)}\n"
        f"{point.flops_per_s / 1e9:,.1f} GFLOP/s, {point.share * 100:.0f} % of its roof\n"
        f"floor {point.floor_ns / 1e3:,.1f} us, timed {point.timed_ns.median / 1e3:,.1f} us\n"
        f"binds: {point.binds}"
    )


def _roof(line: Line, roofline: Roofline) -> Roof:
    """Names stand above the roofs that are higher than the run's own, below the others."""
    below = line.flat and line.end[1] <= roofline.ridge[1]
    return Roof(line.kind, line.name, line.label, line.begin, line.end, "below" if below else "above")


def _places(roofline: Roofline) -> Iterator[Group]:
    """A line for every place through its batches, a star for its prefill."""
    places = sorted(roofline.places, key=lambda p: (REGIONS.index(p.region), p.place, p.phase))  # stable: by batch
    for (region, _, phase), points in groupby(places, key=lambda p: (p.region, p.place, p.phase)):
        marks = (Mark(p.intensity, p.flops_per_s, hint(p), size=size_of(roofline, p)) for p in points)
        yield Group(region, REGIONS.index(region), phase == "decode", tuple(marks))


def _steps(roofline: Roofline) -> Iterator[Group]:
    for phase, name in (("decode", "decode step, by batch"), ("prefill", "prefill")):
        decode = phase == "decode"
        marks = tuple(
            Mark(
                p.intensity,
                p.flops_per_s,
                hint(p),
                str(p.batch) if decode else f"prefill {p.tokens}",
                size_of(roofline, p) + STEP_MORE,
            )
            for p in roofline.steps
            if p.phase == phase
        )
        if marks:
            yield Group(name, None, decode, marks)
