"""Profile: what a trace of some steps comes to, place by place. Knows no profiler and no file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlaceTime:
    """One place of the model, all layers together. region: of core.cost.REGIONS. host_ns: on the engine's thread.
    device_ns: of the kernels that were launched there; None where there is no GPU."""

    region: str
    place: str
    calls: int
    host_ns: int
    device_ns: int | None


def shares(places: tuple[PlaceTime, ...]) -> list[float]:
    """Of the time of all places: the device's where a GPU did anything, otherwise the host's."""
    on_device = [place.device_ns or 0 for place in places]
    times = on_device if any(on_device) else [place.host_ns for place in places]
    whole = sum(times) or 1
    return [time / whole for time in times]
