"""Ladder: rounds in which every rung serves the same load, in an order drawn anew. Knows stations; builds no engine.

A fixed piece of work, the guard, is timed before every rung and at a round's end: a round in which it moved by more
than DRIFT measured the machine and not the rungs, and is repeated, a bounded number of times.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ridgeline.lab.counters.attached import Counters
from ridgeline.lab.ladder.agreement import Reference, check_round
from ridgeline.lab.ladder.rungs import PEER
from ridgeline.lab.ladder.station import Served, Station
from ridgeline.lab.ladder.work import LEAST_REQUESTS, PAIR, Request, Sizes, draw

DRIFT = 0.10
MOST_VOIDED = 3
"""Rounds that are repeated for the guard's sake, in a whole run."""

Guard = Callable[[], int]
"""Does the same work each time; nanoseconds."""


@dataclass(frozen=True, slots=True)
class Place:
    """A rung that is measured. alone: it serves one request at a time."""

    name: str
    station: Station
    alone: bool


@dataclass(frozen=True, slots=True)
class Climb:
    """places: from the lowest. references: as agreement.check_round takes them. sizes: of the load that is drawn.
    requests: of it, from the first, that each rung serves. show: (what runs, rungs done)."""

    places: Sequence[Place]
    references: Mapping[str, Reference]
    guard: Guard
    sizes: Sizes
    requests: Mapping[str, int]
    vocab: int
    gap_ns: int
    seed: int
    show: Callable[[str, int], None]

    def warm_up(self) -> dict[str, float]:
        """Some requests for each rung, not counted: what is compiled, allocated or read for the first time is there
        then. Returns seconds a request, of the same once more."""
        load = draw(self.sizes, self.vocab, self.gap_ns, (self.seed, 0))
        found: dict[str, float] = {}
        for done, place in enumerate(self.places):
            self.show(f"warm-up: {place.name}", done)
            few = load[: PAIR if place.alone else LEAST_REQUESTS]
            first, second = (place.station.serve(few).measure for _ in range(2))
            found[place.name] = min(first.makespan_ns, second.makespan_ns) / len(few) / 1e9
        self.guard()
        return found

    def round(self, serial: int) -> dict[str, Any]:
        """A round, as the run file has it. serial: 1 or more, never one that was used, because a load that comes again
        would be found in the prefix cache."""
        requests = draw(self.sizes, self.vocab, self.gap_ns, (self.seed, serial))
        order = np.random.default_rng((self.seed, serial, 1)).permutation(len(self.places)).tolist()
        served: dict[str, Served] = {}
        guards: list[int] = []
        for done, index in enumerate(order):
            place = self.places[index]
            self.show(place.name, done)
            guards.append(self.guard())
            served[place.name] = place.station.serve(requests[: self.requests[place.name]])
        guards.append(self.guard())
        return {
            "serial": serial,
            "order": [self.places[index].name for index in order],
            "guard_ns": guards,
            "drift": drift(guards),
            "measures": {place.name: served[place.name].measure.json() for place in self.places},
            "checks": self._checks(requests, served),
        }

    def counted(self, place: Place, counters: Counters, serial: int) -> dict[str, Any]:
        """What the hardware counted for a token, as the run file has it. serial: the first that was not used yet."""
        serials, tokens = itertools.count(serial), 0

        def work() -> None:
            nonlocal tokens
            requests = draw(self.sizes, self.vocab, self.gap_ns, (self.seed, next(serials)))
            tokens += place.station.serve(requests[: self.requests[place.name]]).measure.tokens

        found = counters.count(work)
        return {"values": {key: value / tokens for key, value in found.values.items()}, "reasons": dict(found.reasons)}

    def _checks(self, requests: Sequence[Request], served: Mapping[str, Served]) -> dict[str, Any]:
        self.show("comparing tokens", len(self.places))
        names = [place.name for place in self.places]
        outputs = {name: served[name].outputs for name in names}
        checks = check_round(names, outputs, requests, self.references, PEER)
        return {name: check.json() for name, check in checks.items()}


def drift(guards: Sequence[int]) -> float:
    """How far the machine moved in a round: the median of the first half of its readings against that of the second,
    as a part of the median of all. A single reading that something else delayed is no drift."""
    half = (len(guards) + 1) // 2
    first, second = statistics.median(guards[:half]), statistics.median(guards[-half:])
    return abs(second - first) / statistics.median(guards)


@dataclass(slots=True)
class Rounds:
    """What was measured so far. voided: rounds that drifted and were repeated, with their readings alone."""

    kept: list[dict[str, Any]] = field(default_factory=list)
    voided: list[dict[str, Any]] = field(default_factory=list)

    def climb(self, climb: Climb, wanted: int, saved: Callable[[], None], late: Callable[[], bool]) -> None:
        """Until `wanted` rounds are kept. saved: called after each. late: whether there is no time to repeat one."""
        while len(self.kept) < wanted:
            found = climb.round(1 + len(self.kept) + len(self.voided))
            if found["drift"] > DRIFT and len(self.voided) < MOST_VOIDED and not late():
                self.voided.append({name: found[name] for name in ("serial", "guard_ns", "drift")})
            else:
                self.kept.append(found)
            saved()
