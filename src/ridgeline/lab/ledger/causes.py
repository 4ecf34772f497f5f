"""Causes: why a place took longer than its floor, as far as the numbers say. Knows entries and ceilings, and no clock.

Each cause is an amount of time that a count explains: so many operations more than predicted, so many bytes more. They
are taken in the order of CAUSES, each at most what the ones before have left, first in every place and then in what
places make up together, so that they never add up to more than the distance between floor and time; what they leave is
called not explained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ridgeline.core.ceilings import Ceilings
from ridgeline.core.cost import Formats
from ridgeline.lab.ledger.entries import MATRIX_REGIONS, Entry, Predicted, Step, add

LAUNCHES, PASSES, PADDING = "launch gaps", "extra passes", "padding"
HOST, MISSES, TILES = "host wait", "cache misses", "small tiles"
CAUSES = (LAUNCHES, PASSES, PADDING, HOST, MISSES, TILES)
REST = "not explained"
FEW_ROWS = 32
"""Rows below which a matrix product fills no tile of the hardware's matrix units; a ceiling is measured with many."""

_ROUNDING_NS = 0.5  # less than what a clock can tell is what sums of floats leave over


@dataclass(frozen=True, slots=True)
class Account:
    """Some places, or a step, against its floor. causes: nanoseconds by name, what is not explained included; empty
    where the time is below the floor. mbu, mfu: predicted bytes and FLOP over time, as a part of memory's bandwidth and
    of the matrix rate; None where nothing was predicted."""

    predicted: Predicted
    timed_ns: float
    calls: int | None
    operand_bytes: int | None
    counted_bytes: int | None
    mbu: float | None
    mfu: float | None
    causes: dict[str, float]

    @property
    def residual_ns(self) -> float:
        """Time above the floor; negative where caches gave more than the ceiling that was assumed."""
        return self.timed_ns - self.predicted.ns

    @property
    def below_floor(self) -> bool:
        return self.residual_ns < 0


@dataclass(frozen=True, slots=True)
class Accountant:
    """Divides the entries of steps by the ceilings."""

    ceilings: Ceilings
    formats: Formats

    def places(self, step: Step, entries: Sequence[Entry]) -> Account:
        """Of these places together."""
        return self._account(step, entries, sum(entry.timed_ns.median for entry in entries))

    def step(self, step: Step) -> Account:
        """Of the whole step, as it was timed when nobody watched."""
        found = self._account(step, step.places, step.step_ns.median)
        return found if step.counted_bytes is None else replace(found, counted_bytes=step.counted_bytes)

    def _account(self, step: Step, entries: Sequence[Entry], timed_ns: float) -> Account:
        predicted = add([entry.predicted for entry in entries if entry.predicted.ns])
        memory, peak = self.ceilings.memory.read.median, self.ceilings.peak(self.formats.compute)
        known = predicted.ns > 0 and timed_ns > 0
        return Account(
            predicted=predicted,
            timed_ns=timed_ns,
            calls=_sum([entry.calls for entry in entries]),
            operand_bytes=_sum([entry.operand_bytes for entry in entries]),
            counted_bytes=_sum([entry.counted_bytes for entry in entries]),
            mbu=predicted.bytes / (timed_ns * 1e-9) / memory if known else None,
            mfu=predicted.flops / (timed_ns * 1e-9) / peak if known else None,
            causes=self._causes(step, entries, timed_ns - predicted.ns),
        )

    def _causes(self, step: Step, entries: Sequence[Entry], residual: float) -> dict[str, float]:
        found = dict.fromkeys(CAUSES, 0.0)
        for entry in entries:
            for name, ns in self._of(step, entry).items():
                found[name] += ns
        taken = _taken(found, residual)
        rest = max(0.0, residual) - sum(taken.values())
        return taken | ({REST: rest} if rest > _ROUNDING_NS else {})

    def _of(self, step: Step, entry: Entry) -> dict[str, float]:
        """What each cause explains of one place."""
        residual = entry.timed_ns.median - entry.predicted.ns
        found = dict.fromkeys(CAUSES, 0.0) | {
            LAUNCHES: self._launches(entry),
            PASSES: self._passes(entry),
            PADDING: _padding(step, entry),
            MISSES: self._misses(entry),
        }
        if entry.region == "host":
            found[HOST] = residual  # all of it that has no other name
        if entry.region in MATRIX_REGIONS and _rows(step, entry) < FEW_ROWS:
            found[TILES] = residual
        return _taken(found, residual)

    def _launches(self, entry: Entry) -> float:
        """Operations beside those predicted, at what the smallest one costs."""
        if entry.calls is None:
            return 0.0
        return max(0, entry.calls - entry.predicted.launches) * self.ceilings.launch_ns.median

    def _passes(self, entry: Entry) -> float:
        """Bytes of operands above those predicted, at the bandwidth of the level that those of one operation fit."""
        if entry.operand_bytes is None or not entry.calls:
            return 0.0
        extra = max(0, entry.operand_bytes - entry.predicted.bytes)
        level = self.ceilings.level_for(entry.operand_bytes // entry.calls)
        return extra / level.read.median * 1e9

    def _misses(self, entry: Entry) -> float:
        """Bytes that the hardware counted above those of the operands, from memory."""
        if entry.counted_bytes is None or entry.operand_bytes is None:
            return 0.0
        return max(0, entry.counted_bytes - entry.operand_bytes) / self.ceilings.memory.read.median * 1e9


def _taken(found: dict[str, float], residual: float) -> dict[str, float]:
    """Causes in their order, each at most what the ones before leave of the residual."""
    left, taken = max(0.0, residual), {}
    for name in CAUSES:
        if (ns := min(found[name], left)) > 0:
            taken[name] = ns
            left -= ns
    return taken


def _padding(step: Step, entry: Entry) -> float:
    """The part of the time that went to positions nobody wanted. The head and the sampler see none of them."""
    if entry.region in ("host", "head", "sampling") or not step.padding:
        return 0.0
    return entry.timed_ns.median * step.padding / (step.shape.positions + step.padding)


def _rows(step: Step, entry: Entry) -> int:
    return step.shape.wanted if entry.region == "head" else step.shape.positions + step.padding


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
