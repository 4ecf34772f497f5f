"""The rate of memory that a server's steps are measured by: as measured, else as the datasheet has it, else none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from ridgeline.core.ceilings import to_json
from ridgeline.core.records import write_run
from ridgeline.device.base import Device
from ridgeline.device.kept import ceilings_path, memory_rate
from tests.lab.hand_ceilings import machine


def device(name: str) -> Device:
    return cast(Device, SimpleNamespace(name=name))


def test_the_rate_is_that_of_the_level_that_holds_the_weights(tmp_path: Path) -> None:
    here, ceilings = device("a CPU"), machine()
    write_run(ceilings_path(tmp_path, here), to_json(ceilings))
    assert memory_rate(tmp_path, device("another CPU"), 1) is None
    rate = memory_rate(tmp_path, here, 10**12)
    assert rate is not None
    assert rate[0] == ceilings.memory.read.median
    assert rate[1] == f"measured {ceilings.memory.read.median / 1e9:.3g} GB/s"
    cache = ceilings.last_cache
    assert cache is not None
    assert cache.capacity_bytes is not None
    rate = memory_rate(tmp_path, here, cache.capacity_bytes)
    assert rate is not None
    assert rate[0] == cache.read.median
    assert rate[1].endswith(f", {cache.name}")


def test_without_a_measurement_it_is_the_datasheets(tmp_path: Path) -> None:
    gpu = device("NVIDIA H100 80GB HBM3")
    for cache in (None, tmp_path):
        assert memory_rate(cache, gpu, 1) == (3350e9, "datasheet 3.35 TB/s")
    path = ceilings_path(tmp_path, gpu)
    path.parent.mkdir(parents=True)
    path.write_text("no JSON")
    assert memory_rate(tmp_path, gpu, 1) == (3350e9, "datasheet 3.35 TB/s"), "calibrate complains, a server serves"
