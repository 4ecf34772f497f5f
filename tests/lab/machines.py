"""Ceilings of a machine that is not there, round enough to compute with by hand."""

from __future__ import annotations

from dataclasses import replace

from ridgeline.core.ceilings import Ceilings, Level, Rate


def exactly(value: float) -> Rate:
    return Rate(value, value, value)


# 1 ns a byte from memory, a tenth of it from L3; 1000 FLOP a ns; 10 us a launch.
MACHINE = Ceilings(
    device="a machine",
    threads=1,
    levels=(Level("L3", 1_000_000, exactly(10e9)), Level("memory", None, exactly(1e9))),
    matrix={"float32": exactly(1e12), "bfloat16": exactly(2e12)},
    launch_ns=exactly(10_000.0),
    graph_launch_ns=None,
    to_device=None,
    datasheet=None,
    provenance={"cpu": "a cpu"},
)


def without_cache() -> Ceilings:
    return replace(MACHINE, levels=MACHINE.levels[1:])
