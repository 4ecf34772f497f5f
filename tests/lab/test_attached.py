"""Attached: what this process does is counted, for as long as the work takes, and what cannot be counted says why."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from ridgeline.device.energy import Unmetered
from ridgeline.lab.counters import perf
from ridgeline.lab.counters.attached import KEYS, Counters
from tests.lab.standins import STEP_CYCLES, environment, put

NO_ENERGY = Unmetered("no counter of energy here")


class Steady:
    """Ten joules for every reading."""

    source = "by hand"

    def __init__(self) -> None:
        self.readings = 0

    def read(self) -> tuple[int, ...]:
        self.readings += 1
        return (self.readings * 10_000_000,)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        return (after[0] - before[0]) / 1e6


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_perf_is_attached_and_told_when_to_count(tmp_path: Path) -> None:
    put(tmp_path, "perf", "works", "perf-intel.csv")
    begun = time.perf_counter()
    found = Counters(perf.offer(environment(tmp_path)), Steady()).count(lambda: burn(0.4))
    assert found.values["cycles"] == STEP_CYCLES
    assert found.values["instructions"] == 9_600_000_000
    assert found.values["joules"] == 10.0
    assert found.reasons == {}
    assert time.perf_counter() - begun >= 1.0  # a counter of energy that moves ten times a second needs as long


def test_without_counters_the_work_is_done_and_every_key_says_why(tmp_path: Path) -> None:
    counters = Counters(perf.offer({"PATH": str(tmp_path)}), NO_ENERGY)
    assert not counters.can_count
    done: list[int] = []
    found = counters.count(lambda: done.append(1))
    assert done
    assert found.values == {}
    assert set(found.reasons) == {"joules", *KEYS}
    assert found.reasons["joules"] == NO_ENERGY.reason
    assert "not installed" in found.reasons["cycles"]


def test_output_that_is_cut_off_is_a_reason(tmp_path: Path) -> None:
    put(tmp_path, "perf", "cut", "perf-intel.csv")
    found = Counters(perf.offer(environment(tmp_path)), NO_ENERGY).count(lambda: burn(0.3))
    assert found.values == {}
    assert "cut off" in found.reasons["cycles"]


def test_the_real_perf_counts_this_process() -> None:
    """With an event that virtual machines have too, in the place of cycles."""
    offered = perf.offer(environment(), (perf.Event("cycles", ("task-clock",)),))
    if "cycles" not in offered.names:
        pytest.skip(offered.missing["cycles"])
    offered = dataclasses.replace(offered, missing=dict.fromkeys(KEYS, "not asked for"))
    begun = time.process_time()
    found = Counters(offered, NO_ENERGY).count(lambda: burn(0.2))
    assert found.values["cycles"] / 1e9 == pytest.approx(time.process_time() - begun, rel=0.2)  # perf says nanoseconds
