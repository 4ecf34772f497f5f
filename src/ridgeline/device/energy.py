"""Energy: what the hardware's own counters say was used. Knows counters that only grow; knows no step and no token.

An NVIDIA GPU counts its whole board (NVML); a CPU counts its packages, and memory where it can (RAPL through Linux'
powercap). Both count whatever else runs there too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class Unmetered:
    """There is no counter that may be read; the reason says how there would be one."""

    reason: str


class Meter(Protocol):
    @property
    def source(self) -> str: ...

    def read(self) -> tuple[int, ...]:
        """The counters now, in microjoules. Raises OSError where they cannot be read any more."""
        ...

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """What was used between two readings that are less than one wrap-around apart."""
        ...


@dataclass(frozen=True, slots=True)
class Zone:
    """A counter of powercap that begins again at 0 when it has passed range_uj."""

    path: Path
    range_uj: int


@dataclass(frozen=True, slots=True)
class RaplMeter:
    """Intel's and AMD's running average power limit counters (kernel documentation, power/powercap)."""

    zones: tuple[Zone, ...]
    source: str = "RAPL"

    def read(self) -> tuple[int, ...]:
        return tuple(int(zone.path.read_text()) for zone in self.zones)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        used = 0
        for zone, first, last in zip(self.zones, before, after, strict=True):
            used += last - first if last >= first else last + zone.range_uj - first
        return used / 1e6


@dataclass(frozen=True, slots=True)
class NvmlMeter:
    """The board's counter, in millijoules since the driver was loaded (Volta and later)."""

    millijoules: Callable[[], int] = field(repr=False)
    source: str = "NVML"

    def read(self) -> tuple[int, ...]:
        return (self.millijoules() * 1000,)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        return (after[0] - before[0]) / 1e6


def meter_for(device: torch.device, powercap: Path = POWERCAP) -> Meter | Unmetered:
    """The counter of the device that computes."""
    return _nvml(device) if device.type == "cuda" else rapl(powercap)


def rapl(powercap: Path) -> RaplMeter | Unmetered:
    """Packages, and their memory where it is counted apart."""
    zones, blocked = [], []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        kind = _text(folder / "name") or ""
        if not (kind.startswith("package") or kind == "dram"):  # cores are part of a package; psys contains it
            continue
        counter, most = folder / "energy_uj", _text(folder / "max_energy_range_uj")
        if _text(counter) is None:
            blocked.append(str(counter))
        elif most is not None and most.isdecimal():
            zones.append(Zone(counter, int(most)))
    if blocked:
        return Unmetered(f"RAPL may be read by root only; allow it with: sudo chmod a+r {' '.join(blocked)}")
    if not zones:
        return Unmetered(
            f"{powercap} has no RAPL counters; load them with `sudo modprobe intel_rapl_msr` (a virtual machine has "
            "none: hypervisors do not pass them on)"
        )
    return RaplMeter(tuple(zones))


def _nvml(device: torch.device) -> NvmlMeter | Unmetered:
    try:
        import pynvml
    except ImportError:
        return Unmetered("NVML cannot be asked; install its Python module: pip install nvidia-ml-py")
    try:
        pynvml.nvmlInit()
        handle = _handle(pynvml, str(torch.cuda.get_device_properties(device).uuid))
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return Unmetered(
            f"NVML does not give this GPU's energy ({error}); GPUs before Volta, slices of a GPU (MIG) and some "
            "virtual GPUs have no such counter"
        )
    return NvmlMeter(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))


def _handle(pynvml: Any, uuid: str) -> Any:
    """By identity, because CUDA_VISIBLE_DEVICES numbers GPUs otherwise than NVML does."""
    return pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
