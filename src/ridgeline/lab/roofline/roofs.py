"""Roofs: a ledger as points under measured roofs. Divides what others predicted and timed; measures and draws nothing.

The roofline model of Williams, Waterman and Patterson (CACM 2009): arithmetic intensity across, FLOP/s up; an operation
lies under the diagonal of the memory level that its bytes come from, and under the roof of its number format. Intensity
is predicted FLOP over predicted bytes, so a point stands where the algorithm belongs; only its height is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ridgeline.core.ceilings import Ceilings, Level
from ridgeline.core.cost import step_costs
from ridgeline.core.errors import ConfigError
from ridgeline.lab.ledger.entries import Entry, Phase, Spread, Step
from ridgeline.lab.ledger.file import Ledger

STEP = "step"
_NEAR = 1.5  # names of roofs that differ by less would cover each other

Kind = Literal["level", "roof", "other roof", "datasheet"]


@dataclass(frozen=True, slots=True)
class Point:
    """A place of one kind of step, or the whole step (region and place `step`). roof_ns: the time that its roof allows,
    launches left out; floor_ns: launches included. binds: the ceiling that most of the floor comes from."""

    region: str
    place: str
    phase: Phase
    batch: int
    tokens: int
    bytes: int
    flops: int
    roof_ns: float
    floor_ns: float
    timed_ns: Spread
    binds: str

    @property
    def intensity(self) -> float:
        """FLOP a byte."""
        return self.flops / self.bytes

    @property
    def flops_per_s(self) -> float:
        return self.flops / self.timed_ns.median * 1e9

    @property
    def share(self) -> float:
        """Of the FLOP/s that its roof allows at this intensity, from the level its bytes come from."""
        return self.roof_ns / self.timed_ns.median

    @property
    def of_step(self) -> str:
        if self.phase == "prefill":
            return f"prefill, {self.tokens} tokens"
        return f"decode, batch {self.batch}"

    @property
    def where(self) -> str:
        return self.place if self.place == self.region else f"{self.region}: {self.place}"


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line of the plot, in FLOP/byte and FLOP/s. label: what stands beside it; empty where a line that lies
    too near says it already, and for a datasheet's, which the legend names."""

    kind: Kind
    name: str
    label: str
    begin: tuple[float, float]
    end: tuple[float, float]

    @property
    def flat(self) -> bool:
        return self.begin[1] == self.end[1]


@dataclass(frozen=True, slots=True)
class Roofline:
    """places: every place with FLOP, in the order of the steps; steps: whole ones, decode by batch, then prefill.
    streamed: bytes of weights and cache that a step reads, by its phase, batch and tokens."""

    ledger: Ledger
    places: tuple[Point, ...]
    steps: tuple[Point, ...]
    streamed: Mapping[tuple[Phase, int, int], int]

    @staticmethod
    def of(ledger: Ledger) -> Roofline:
        """Raises ConfigError for a ledger in which nothing was computed."""
        order = sorted(ledger.steps, key=lambda step: (step.phase, step.batch, step.tokens))
        places = tuple(_point(step, e) for step in order for e in step.places if _drawn(e))
        if not places:
            raise ConfigError("this ledger has no operation with FLOP and a time, so there is nothing to draw")
        streamed = {_key(step): _streamed_bytes(ledger, step) for step in order}
        return Roofline(
            ledger, places, tuple(_whole(step) for step in order if any(map(_drawn, step.places))), streamed
        )

    @property
    def ceilings(self) -> Ceilings:
        return self.ledger.ceilings

    @property
    def compute(self) -> str:
        return self.ledger.formats.compute

    @property
    def ridge(self) -> tuple[float, float]:
        """Of memory and the run's number format: FLOP/byte and FLOP/s."""
        return self.ceilings.ridge(self.compute), self.ceilings.peak(self.compute)

    @property
    def decode(self) -> tuple[Point, ...]:
        return tuple(point for point in self.steps if point.phase == "decode")

    def level(self, point: Point) -> Level:
        """Where the weights and the cache of the point's step come from."""
        return self.ceilings.level_for(self.streamed_bytes(point))

    def ridge_of(self, point: Point) -> float:
        """FLOP/byte of the ridge of the run's number format and the level that the point's step reads from."""
        return self.ceilings.peak(self.compute) / self.level(point).read.median

    def streamed_bytes(self, point: Point) -> int:
        return self.streamed[_key(point)]

    @property
    def across(self) -> tuple[float, float]:
        """What the plot shows of FLOP/byte."""
        found = [point.intensity for point in (*self.places, *self.steps)]
        return min(found) / 2, max(
            4 * max(found), 40 * self.ridge[0]
        )  # roofs begin at ridges, and their names need room

    @property
    def up(self) -> tuple[float, float]:
        """What the plot shows of FLOP/s, with room above the roofs for their names."""
        found = [point.flops_per_s for point in (*self.places, *self.steps)]
        return min(found) / 2, max(*found, *(line.end[1] for line in self.lines)) * 10

    @property
    def ridge_name(self) -> tuple[float, float]:
        """Where there is room for the words at the ridge: above the roofs, right of memory's turned name."""
        peak = max(rate.median for rate in self.ceilings.matrix.values())
        return 3.5 * peak / self.ceilings.memory.read.median, 2.2 * peak

    @property
    def lines(self) -> tuple[Line, ...]:
        """Diagonals go up to the highest measured roof, and roofs begin at the fastest diagonal."""
        ceilings, (low, high) = self.ceilings, self.across
        highest = max(rate.median for rate in ceilings.matrix.values())
        fastest = max(level.read.median for level in ceilings.levels)
        lines = [
            _diagonal("level", f"{level.name} {rate_words(level.read.median)}B/s", level.read.median, low, highest)
            for level in ceilings.levels
        ]
        for name, rate in ceilings.matrix.items():
            kind: Kind = "roof" if name == self.compute else "other roof"
            lines.append(_roof(kind, f"{name} {rate_words(rate.median)}FLOP/s", rate.median, fastest, high))
        lines = _named_together(lines)
        if (sheet := ceilings.datasheet) is not None:
            told = f"datasheet: {rate_words(sheet.bytes_per_s)}B/s"
            peak = sheet.flops_per_s.get(self.compute)
            lines.append(_diagonal("datasheet", told, sheet.bytes_per_s, low, max(highest, peak or 0.0)))
            if peak is not None:
                told = f"datasheet: {self.compute} {rate_words(peak)}FLOP/s"
                lines.append(_roof("datasheet", told, peak, sheet.bytes_per_s, high))
        return tuple(lines)


def _diagonal(kind: Kind, label: str, bytes_per_s: float, low: float, highest: float) -> Line:
    return Line(kind, label, _label(kind, label), (low, low * bytes_per_s), (highest / bytes_per_s, highest))


def _roof(kind: Kind, label: str, flops_per_s: float, bytes_per_s: float, high: float) -> Line:
    return Line(
        kind, label, _label(kind, label), (min(flops_per_s / bytes_per_s, high), flops_per_s), (high, flops_per_s)
    )


def _label(kind: Kind, name: str) -> str:
    return "" if kind == "datasheet" else name


def _named_together(lines: Sequence[Line]) -> list[Line]:
    """Roofs that lie close together have their names beside the first of them."""
    named: list[Line] = []
    for line in lines:
        near = [i for i, other in enumerate(named) if _close(line, other)]
        if near:
            named[near[0]] = replace(named[near[0]], label=f"{named[near[0]].label}, {line.label}")
        named.append(replace(line, label="") if near else line)
    return named


def _close(line: Line, other: Line) -> bool:
    return line.flat and other.flat and other.label != "" and 1 / _NEAR < line.end[1] / other.end[1] < _NEAR


def rate_words(value: float) -> str:
    """`41.3 G`, `2.05 T`: three digits and what they count."""
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} P"


def _drawn(entry: Entry) -> bool:
    return entry.predicted.flops > 0 and entry.predicted.bytes > 0 and entry.timed_ns.median > 0


def _point(step: Step, entry: Entry) -> Point:
    of = entry.predicted
    return Point(
        region=entry.region,
        place=entry.place,
        phase=step.phase,
        batch=step.batch,
        tokens=step.tokens,
        bytes=of.bytes,
        flops=of.flops,
        roof_ns=max(of.memory_ns, of.compute_ns),
        floor_ns=of.ns,
        timed_ns=entry.timed_ns,
        binds=of.binds,
    )


def _whole(step: Step) -> Point:
    """The step as it is when nobody watches its regions."""
    parts = [_point(step, entry) for entry in step.places]
    shares: dict[str, float] = {}
    for part in parts:
        shares[part.binds] = shares.get(part.binds, 0.0) + part.floor_ns
    return Point(
        region=STEP,
        place=STEP,
        phase=step.phase,
        batch=step.batch,
        tokens=step.tokens,
        bytes=_sum(parts, "bytes"),
        flops=_sum(parts, "flops"),
        roof_ns=sum(part.roof_ns for part in parts),
        floor_ns=sum(part.floor_ns for part in parts),
        timed_ns=step.step_ns,
        binds=max(shares, key=lambda name: shares[name]),
    )


def _sum(parts: Sequence[Point], name: str) -> int:
    return sum(getattr(part, name) for part in parts)


def _key(of: Point | Step) -> tuple[Phase, int, int]:
    return of.phase, of.batch, of.tokens


def _streamed_bytes(ledger: Ledger, step: Step) -> int:
    return sum(cost.streamed_bytes for cost in step_costs(ledger.spec, step.shape, ledger.formats))
