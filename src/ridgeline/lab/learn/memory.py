"""The memory hierarchy: how fast each level feeds all cores, and how much must be on its way for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ridgeline.core.ceilings import Ceilings
from ridgeline.lab.learn.chapter import Figures, Found, Place
from ridgeline.lab.machine import ceilings_of

if TYPE_CHECKING:
    from ridgeline.core.ceilings import Level


def levels(place: Place) -> Found:
    """Read rate and size of every level, and how long the model's weights would take from each."""
    device = place.bench.loaded.device
    ceilings = ceilings_of(device, place.cache, place.progress)
    weights = int(place.bench.spec.parameters * place.bench.formats.weight_bits / 8)
    nearest = ceilings.levels[0].read.median / ceilings.memory.read.median
    rows = tuple(_row(level, ceilings, weights) for level in ceilings.levels)
    holder = ceilings.level_for(weights)
    told = (
        f"{ceilings.levels[0].name} feeds all cores {nearest:.0f} times as fast as memory does.",
        f"This model's weights are {weights / 1e6:,.0f} MB and lie in {holder.name}: every decode step reads them "
        f"once, so none is shorter than {weights / holder.read.median * 1e3:.2f} ms, however fast the arithmetic is.",
    )
    return Found(
        nearest, Figures(("level", "holds", "reads, GB/s", "against memory", "all weights in, ms"), rows), told
    )


def _row(level: Level, ceilings: Ceilings, weights: int) -> tuple[str, ...]:
    size = "-" if level.capacity_bytes is None else f"{level.capacity_bytes / 2**20:,.2f} MiB"
    rate = level.read.median
    return (
        level.name,
        size,
        f"{rate / 1e9:,.0f}",
        f"{rate / ceilings.memory.read.median:.1f}x",
        f"{weights / rate * 1e3:.3f}",
    )
