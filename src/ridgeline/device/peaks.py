"""Peaks: what this machine can do at most, measured now. Knows which device; the measurements stand in files of their
own, one a kind of device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ridgeline.core.ceilings import Ceilings
from ridgeline.device import peaks_cpu, peaks_cuda
from ridgeline.device.base import Device
from ridgeline.device.cpu import CpuDevice
from ridgeline.device.cuda import CudaDevice
from ridgeline.device.repeats import Budget

Progress = Callable[[str, int, int], None]


def measure(
    device: Device,
    cache: Path,
    progress: Progress,
    provenance: Mapping[str, Any],
    budget: Budget | None = None,
) -> Ceilings:
    """cache: where compiled kernels are kept. progress: called with (what is measured now, measurements done, all).

    A figure is the median of at least five measurements with random values, the warm-up left out. What cannot be
    measured here becomes a note.
    """
    if isinstance(device, CudaDevice):
        return peaks_cuda.measure(device, progress, provenance, budget or peaks_cuda.FULL)
    assert isinstance(device, CpuDevice), device
    return peaks_cpu.measure(device, cache, progress, provenance, budget or Budget())
