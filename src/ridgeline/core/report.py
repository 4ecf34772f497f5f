"""Report: what a run file says to a reader, as data that the page draws. Knows sections and figures; no measurement.

A section is a question, a figure, sentences that answer it, and the numbers as a table. A report travels in its run
file under `report`, so that whoever opens the file has the words that were made from its numbers; server/web/report.js
draws it. A reader of run files makes it anew and never believes the one in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

VERSION = 1


@dataclass(frozen=True, slots=True)
class Bar:
    """label: beside its end. hint: for who points at it. group: what its colour says. low, high: of the repeats."""

    name: str
    value: float
    label: str
    hint: str = ""
    group: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Bars:
    """From the top. across: what their length is, with its unit."""

    across: str
    bars: tuple[Bar, ...]
    kind: Literal["bars"] = "bars"


@dataclass(frozen=True, slots=True)
class Mark:
    """label: beside it. x: a number, or a name where the axis has names. size: pixels, where it says something."""

    x: float | str
    y: float
    hint: str
    label: str = ""
    size: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """dash: "" where colour and mark alone tell it from others, otherwise as SVG's pictures of it are called."""

    name: str
    marks: tuple[Mark, ...]
    dash: Literal["", "dash", "dot"] = ""


@dataclass(frozen=True, slots=True)
class Lines:
    """across, up: the axes, with their units. log: the upper one is logarithmic."""

    across: str
    up: str
    series: tuple[Series, ...]
    log: bool = False
    kind: Literal["lines"] = "lines"


@dataclass(frozen=True, slots=True)
class Roof:
    """A straight line in FLOP/byte and FLOP/s. label: beside its end; empty: the legend names it. aside: on which side
    of a flat line its name stands."""

    kind: str
    name: str
    label: str
    begin: tuple[float, float]
    end: tuple[float, float]
    aside: Literal["above", "below"] = "above"


@dataclass(frozen=True, slots=True)
class Group:
    """Marks of one colour and name. index: of the colour; None: whole steps. joined: by a line."""

    name: str
    index: int | None
    joined: bool
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Roofs:
    """A roofline, both axes logarithmic and from the first of their two numbers to the second. ridges: where levels
    meet the roof. named: of the ridge that is named in the figure, where it is, where the words stand, and they."""

    across: tuple[float, float]
    up: tuple[float, float]
    roofs: tuple[Roof, ...]
    groups: tuple[Group, ...]
    ridges: tuple[Mark, ...]
    named: tuple[tuple[float, float], tuple[float, float], str]
    kind: Literal["roofs"] = "roofs"


@dataclass(frozen=True, slots=True)
class Section:
    """question, readings: plain sentences. headings and rows: the table, all text; its first column is set to the left.
    open_table: show it at once, for sections whose table is the answer."""

    title: str
    question: str
    figure: Bars | Lines | Roofs | None = None
    readings: tuple[str, ...] = ()
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    open_table: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """notes: above the sections; remarks: below them, beside the provenance, which the run file has."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    remarks: Sequence[str] = ()


def reported(run: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """The run file with its report in it."""
    return {**run, "report": {"version": VERSION, **asdict(report)}}


def bare(run: Mapping[str, Any]) -> dict[str, Any]:
    """The run file without it: what was measured."""
    return {name: value for name, value in run.items() if name != "report"}
