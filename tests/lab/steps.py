"""Steps that nobody measured, with numbers round enough to account for by hand (on tests/lab/machines.py's machine)."""

from __future__ import annotations

from typing import Any

from ridgeline.core.cost import Formats
from ridgeline.core.spec import ModelSpec
from ridgeline.lab.ledger.entries import NOTHING, Entry, Predicted, Spread, Step

SPEC = ModelSpec(layers=2, d_model=256, heads=4, d_inner=1024, vocab=1000, max_positions=512)
FORMATS = Formats(32, 32, 32, "float32")


def steadily(ns: float) -> Spread:
    return Spread(ns, ns, ns)


def entry(region: str, timed_ns: float, **facts: Any) -> Entry:
    """A place whose floor is reading `bytes` from memory, and launches; whatever is not given is as predicted."""
    size, launches = facts.pop("bytes", 0), facts.pop("launches", 1)
    floor = float(size + 10_000 * launches)
    predicted = Predicted(floor, float(size), 0.0, 10_000.0 * launches, size, 1000 * size, launches, "memory")
    place = facts.pop("place", region)
    given = {"calls": launches, "operand_bytes": size, "counted_bytes": None} | facts
    return Entry(region, place, predicted, steadily(timed_ns), **given)


def host(timed_ns: float, calls: int = 0) -> Entry:
    return Entry("host", "host", NOTHING, steadily(timed_ns), calls, 0, None)


def step(*places: Entry, **facts: Any) -> Step:
    given: dict[str, Any] = {
        "phase": "decode",
        "batch": 1,
        "context": 64,
        "tokens": 1,
        "step_ns": steadily(sum(place.timed_ns.median for place in places)),
        "padding": 0,
        "uncounted": "nobody did",
    } | facts
    off = given["step_ns"].median
    return Step(places=places, twin_ns=steadily(off * 1.02), rounds=((off, off * 1.02),) * 5, **given)
