"""Ceilings of a machine that does not exist, in round numbers."""

from __future__ import annotations

from typing import Any

from ridgeline.core.ceilings import Ceilings, Datasheet, Level, Rate


def rate(median: float) -> Rate:
    return Rate(median, 0.9 * median, 1.1 * median)


def ceilings(**changes: Any) -> Ceilings:
    """Memory gives 10 bytes a nanosecond, L1 1000; bfloat16 makes 1000 FLOP a nanosecond: a ridge at 100 FLOP/B."""
    fields: dict[str, Any] = {
        "device": "made up",
        "threads": 2,
        "levels": (
            Level("L1", 100_000, rate(1e12)),
            Level("L3", 30_000_000, rate(1e11)),
            Level("memory", None, rate(1e10)),
        ),
        "matrix": {"float32": rate(1e11), "bfloat16": rate(1e12)},
        "launch_ns": rate(1000.0),
        "graph_launch_ns": rate(100.0),
        "to_device": rate(5e9),
        "datasheet": Datasheet("made up", 2e10, {"bfloat16": 2e12}, "a leaflet"),
        "notes": ("a note",),
        "provenance": {"cpu": "none"},
    }
    return Ceilings(**fields | changes)
