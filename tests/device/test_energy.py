"""Energy counters: a folder as Linux has it, wrap-around, and why there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ridgeline.device.energy import NvmlMeter, RaplMeter, Unmetered, rapl


def zone(root: Path, name: str, kind: str, energy_uj: int | None, range_uj: int = 1_000_000) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(kind + "\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    if energy_uj is not None:
        (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder / "energy_uj"


def test_packages_and_their_memory_are_added_up_across_a_wrap_around(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)  # a part of the package
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 100)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    zone(tmp_path, "intel-rapl:2", "psys", 7)  # contains the packages
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 900_000)  # the same package once more
    meter = rapl(tmp_path)
    assert isinstance(meter, RaplMeter)
    before = meter.read()
    first.write_text("400000\n")  # passed 1,000,000 and began again
    memory.write_text("200\n")
    second.write_text("250000\n")
    assert meter.joules(before, meter.read()) == pytest.approx(0.5 + 0.0001 + 0.25)


def test_without_counters_the_reason_says_how_to_get_them(tmp_path: Path) -> None:
    nothing = rapl(tmp_path / "absent")
    assert isinstance(nothing, Unmetered)
    assert "modprobe intel_rapl_msr" in nothing.reason


def test_counters_that_may_not_be_read_name_the_command(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", None)
    if os.geteuid() == 0:
        counter.mkdir()  # root may read every file; a folder cannot be read by anybody
    else:
        counter.touch(mode=0o000)
    blocked = rapl(tmp_path)
    assert isinstance(blocked, Unmetered)
    assert f"sudo chmod a+r {counter}" in blocked.reason


def test_a_boards_millijoules_are_joules() -> None:
    readings = iter([1000, 3500])
    meter = NvmlMeter(lambda: next(readings))
    assert meter.joules(meter.read(), meter.read()) == pytest.approx(2.5)
