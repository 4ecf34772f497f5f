"""Ceilings: what a machine can do at most, as measured on it. Knows numbers and where they came from; measures nothing.

A ceiling is the middle of several measurements, never a figure from a datasheet; datasheet figures stand beside it, in
fields of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ridgeline.core.errors import ConfigError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Rate:
    """Something a second: the median of the measurements, the lowest and the highest. unit: B/s or FLOP/s."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Level:
    """A level of the memory hierarchy. capacity_bytes: what all measured threads together can hold in it; None for
    memory. read: bytes a second that all of them read from it."""

    name: str
    capacity_bytes: int | None
    read: Rate


@dataclass(frozen=True, slots=True)
class Datasheet:
    """A vendor's figures, for the eye only: nothing is divided by them. flops_per_s: by number format, dense."""

    name: str
    bytes_per_s: float
    flops_per_s: Mapping[str, float]
    source: str


@dataclass(frozen=True, slots=True)
class Ceilings:
    """threads: measured together; of a GPU its multiprocessors. levels: nearest first, the last is memory. matrix:
    FLOP/s of matrix products by number format (`bfloat16`, ...).

    launch_ns: what one more operation costs at least, however small, called from Python; graph_launch_ns: inside a
    captured graph; None where there is no such thing. to_device: bytes a second from host to device. notes: what was
    measured in a second-best way, and what would do better. provenance: as core.records has it.
    """

    device: str
    threads: int
    levels: tuple[Level, ...]
    matrix: Mapping[str, Rate]
    launch_ns: Rate
    graph_launch_ns: Rate | None
    to_device: Rate | None
    datasheet: Datasheet | None
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def memory(self) -> Level:
        return self.levels[-1]

    @property
    def last_cache(self) -> Level | None:
        """The largest cache, or None where no cache was measured."""
        return self.levels[-2] if len(self.levels) > 1 else None

    def level_for(self, size: int) -> Level:
        """The nearest level in which so many bytes find room together."""
        fits = (level for level in self.levels[:-1] if size <= (level.capacity_bytes or 0))
        return next(fits, self.memory)

    def peak(self, compute: str) -> float:
        """FLOP/s of matrix products in this number format. Raises ConfigError where it was not measured."""
        if compute not in self.matrix:
            known = ", ".join(self.matrix)
            raise ConfigError(
                f"these ceilings have no matrix rate for {compute} (they have {known}); run `ridgeline calibrate` again"
            )
        return self.matrix[compute].median

    def ridge(self, compute: str) -> float:
        """FLOP a byte from memory at which arithmetic takes as long as reading does: the ridge point of the roofline
        (Williams, Waterman, Patterson 2009)."""
        return self.peak(compute) / self.memory.read.median


def to_json(ceilings: Ceilings) -> dict[str, Any]:
    return {"format": FORMAT} | asdict(ceilings)


def from_json(source: str, document: Any) -> Ceilings:
    """source: what errors call the document. Raises ConfigError for anything that `to_json` would not have written."""
    try:
        if document["format"] != FORMAT:
            raise ConfigError(
                f"{source}: ceilings of format {document['format']!r}, this version reads {FORMAT}; "
                "run `ridgeline calibrate` again"
            )
        levels = tuple(_level(item) for item in _list(document["levels"]))
        if not levels or levels[-1].capacity_bytes is not None:
            raise ValueError("the last level must be memory")
        sheet = document["datasheet"]
        return Ceilings(
            device=str(document["device"]),
            threads=int(document["threads"]),
            levels=levels,
            matrix={str(name): _rate(value) for name, value in document["matrix"].items()},
            launch_ns=_rate(document["launch_ns"]),
            graph_launch_ns=_maybe_rate(document["graph_launch_ns"]),
            to_device=_maybe_rate(document["to_device"]),
            datasheet=None if sheet is None else _datasheet(sheet),
            notes=tuple(str(note) for note in _list(document["notes"])),
            provenance=dict(document["provenance"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfigError(f"{source}: not a file of ceilings ({error!r}); run `ridgeline calibrate` again") from error


def _list(item: Any) -> list[Any]:
    if not isinstance(item, list):
        raise ValueError(f"{item!r} is no list")
    return item


def _level(item: Mapping[str, Any]) -> Level:
    capacity = item["capacity_bytes"]
    if capacity is not None and not (isinstance(capacity, int) and capacity > 0):
        raise ValueError(f"capacity_bytes {capacity!r}")
    return Level(str(item["name"]), capacity, _rate(item["read"]))


def _rate(item: Mapping[str, Any]) -> Rate:
    rate = Rate(float(item["median"]), float(item["low"]), float(item["high"]))
    if not (0 < rate.low <= rate.median <= rate.high and math.isfinite(rate.high)):
        raise ValueError(f"rate {rate}")
    return rate


def _maybe_rate(item: Mapping[str, Any] | None) -> Rate | None:
    return None if item is None else _rate(item)


def _datasheet(item: Mapping[str, Any]) -> Datasheet:
    flops = {str(name): float(value) for name, value in item["flops_per_s"].items()}
    return Datasheet(str(item["name"]), float(item["bytes_per_s"]), flops, str(item["source"]))
