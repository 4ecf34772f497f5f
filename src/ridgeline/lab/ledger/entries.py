"""Entries: what a ledger holds of one kind of step, and its place in a run file. Knows no measurement and no reason.

Beside each other stand what was predicted from shapes, timed, counted by PyTorch's dispatcher (calls, operand bytes)
and counted by the hardware; nothing is computed from another column here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any, Literal

from ridgeline.bench.order import LEAST_ROUNDS
from ridgeline.core.cost import REGIONS, Formats, StepShape
from ridgeline.core.floor import Floor

Phase = Literal["decode", "prefill"]
PHASES: tuple[Phase, ...] = ("decode", "prefill")
_MOST = 1 << 20  # sequences, or positions, that a file may speak of: costs are computed for each
MATRIX_REGIONS = ("qkv", "projection", "mlp", "head")


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of all steps; the lowest and the highest of a round."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(rounds: Sequence[Sequence[float]]) -> Spread:
        """rounds: the steps of each round."""
        middles = [median(steps) for steps in rounds]
        return Spread(median([value for steps in rounds for value in steps]), min(middles), max(middles))

    @staticmethod
    def within(rounds: Sequence[Sequence[float]], chosen: Sequence[int]) -> Spread:
        """Of a part of a step: the mean over the chosen steps, which are counted through all rounds."""
        values = [value for steps in rounds for value in steps]
        middle, means = fmean(values[at] for at in chosen), [fmean(steps) for steps in rounds]
        return Spread(middle, min(middle, *means), max(middle, *means))


@dataclass(frozen=True, slots=True)
class Predicted:
    """ns: the floor. binds: the ceiling that most of it comes from."""

    ns: float
    memory_ns: float
    compute_ns: float
    launch_ns: float
    bytes: int
    flops: int
    launches: int
    binds: str

    @staticmethod
    def of(floors: Sequence[Floor]) -> Predicted:
        """The sum of these floors."""
        return add(
            [
                Predicted(
                    floor.ns, floor.memory_ns, floor.compute_ns, floor.launch_ns,
                    floor.cost.bytes, floor.cost.flops, floor.cost.launches, floor.binds,
                )
                for floor in floors
            ]
        )  # fmt: skip


NOTHING = Predicted(0.0, 0.0, 0.0, 0.0, 0, 0, 0, "")


def add(parts: Sequence[Predicted]) -> Predicted:
    if not parts:
        return NOTHING
    by_ceiling: dict[str, float] = {}
    for part in parts:
        by_ceiling[part.binds] = by_ceiling.get(part.binds, 0.0) + part.ns
    return Predicted(
        ns=sum(p.ns for p in parts),
        memory_ns=sum(p.memory_ns for p in parts),
        compute_ns=sum(p.compute_ns for p in parts),
        launch_ns=sum(p.launch_ns for p in parts),
        bytes=sum(p.bytes for p in parts),
        flops=sum(p.flops for p in parts),
        launches=sum(p.launches for p in parts),
        binds=max(by_ceiling, key=lambda name: by_ceiling[name]),
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """One place in the model, of all layers together. calls: operations really called; operand_bytes: of their tensors;
    counted_bytes: from memory, by the hardware's counters; None: not counted."""

    region: str
    place: str
    predicted: Predicted
    timed_ns: Spread
    calls: int | None
    operand_bytes: int | None
    counted_bytes: int | None


@dataclass(frozen=True, slots=True)
class Step:
    """tokens: made by a decode step, computed by a prefill. step_ns: nobody watched; twin_ns: the same steps, operation
    after operation with regions timed; rounds: the medians of both, by round. counted_bytes: from memory, by the
    hardware's counters, and counted_how; None where uncounted says why there are none."""

    phase: Phase
    batch: int
    context: int
    tokens: int
    step_ns: Spread
    twin_ns: Spread
    rounds: tuple[tuple[float, float], ...]
    padding: int
    places: tuple[Entry, ...]
    uncounted: str | None
    counted_bytes: int | None = None
    counted_how: str | None = None

    @property
    def shape(self) -> StepShape:
        """Without padding: what the step is for."""
        if self.phase == "prefill":
            return StepShape.prefill(self.context, self.batch)
        return StepShape.decode(self.batch, self.context)

    @property
    def regions(self) -> dict[str, list[Entry]]:
        """Regions that have places here, in the order of core.cost.REGIONS."""
        found = {region: [entry for entry in self.places if entry.region == region] for region in REGIONS}
        return {region: entries for region, entries in found.items() if entries}

    @property
    def places_ns(self) -> float:
        """The sum of all places, to be held against step_ns."""
        return sum(entry.timed_ns.median for entry in self.places)


def step_to_json(step: Step) -> dict[str, Any]:
    return asdict(step)


def step_from_json(item: Mapping[str, Any]) -> Step:
    """Raises KeyError, TypeError or ValueError for what `step_to_json` would not have written."""
    phase = item["phase"]
    if phase not in PHASES:
        raise ValueError(f"phase {phase!r}")
    rounds = tuple((_time(off), _time(on)) for off, on in item["rounds"])
    places = tuple(map(_entry, item["places"]))
    if not places:
        raise ValueError("a step without places")
    if len(rounds) < LEAST_ROUNDS:
        raise ValueError(f"{len(rounds)} rounds")
    uncounted = item["uncounted"]
    return Step(
        phase=phase,
        batch=_whole(item["batch"], 1, _MOST),
        context=_whole(item["context"], 1, _MOST),
        tokens=_whole(item["tokens"], 1),
        step_ns=_spread(item["step_ns"], positive=True),
        twin_ns=_spread(item["twin_ns"], positive=True),
        rounds=rounds,
        padding=_whole(item["padding"]),
        places=places,
        uncounted=None if uncounted is None else str(uncounted),
        counted_bytes=_maybe(item.get("counted_bytes")),
        counted_how=None if item.get("counted_how") is None else str(item["counted_how"]),
    )


def formats_from_json(item: Mapping[str, Any]) -> Formats:
    weights, kv, values = (_whole(item[name], 1) for name in ("weight_bits", "kv_bits", "activation_bits"))
    return Formats(weights, kv, values, str(item["compute"]), _whole(item.get("kv_scale_bits", 0)))


def _entry(item: Mapping[str, Any]) -> Entry:
    if item["region"] not in REGIONS:
        raise ValueError(f"region {item['region']!r}")
    predicted = item["predicted"]
    ns, memory, compute, launch = (_number(predicted[f"{part}ns"]) for part in ("", "memory_", "compute_", "launch_"))
    size, flops, launches = (_whole(predicted[name]) for name in ("bytes", "flops", "launches"))
    return Entry(
        region=item["region"],
        place=str(item["place"]),
        predicted=Predicted(ns, memory, compute, launch, size, flops, launches, str(predicted["binds"])),
        timed_ns=_spread(item["timed_ns"]),
        calls=_maybe(item["calls"]),
        operand_bytes=_maybe(item["operand_bytes"]),
        counted_bytes=_maybe(item["counted_bytes"]),
    )


def _spread(item: Mapping[str, Any], *, positive: bool = False) -> Spread:
    spread = Spread(*(_number(item[name]) for name in ("median", "low", "high")))
    if not spread.low <= spread.median <= spread.high or (positive and not spread.low > 0):
        raise ValueError(f"times {dict(item)}")
    return spread


def _time(value: Any) -> float:
    number = _number(value)
    if not number > 0:
        raise ValueError(f"a time of {value!r}")
    return number


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is not a number from 0 on")
    return float(value)


def _whole(value: Any, low: int = 0, high: int = 1 << 63) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
    return value


def _maybe(value: Any) -> int | None:
    return None if value is None else _whole(value)
