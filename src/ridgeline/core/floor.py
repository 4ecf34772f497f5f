"""Floor: the least time that a step can take on a machine, from costs and measured ceilings. Divides; measures nothing.

floor of an operation = max(bytes / bandwidth of the level that holds them, FLOP / peak) + launches; of a step, the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ridgeline.core.ceilings import Ceilings
from ridgeline.core.cost import OpCost

LAUNCH = "launch"


@dataclass(frozen=True, slots=True)
class Floor:
    """One operation's least time and its parts. binds: the largest part's ceiling: a level's name (`L3`, `memory`),
    `matrix bfloat16`, or `launch`."""

    cost: OpCost
    memory_ns: float
    compute_ns: float
    launch_ns: float
    binds: str

    @property
    def ns(self) -> float:
        return max(self.memory_ns, self.compute_ns) + self.launch_ns


def floors(costs: Sequence[OpCost], ceilings: Ceilings, compute: str, *, in_graph: bool = False) -> tuple[Floor, ...]:
    """compute: the format of matrix products. in_graph: launches cost what they do inside a captured graph."""
    peak = ceilings.peak(compute)
    launch = ceilings.graph_launch_ns if in_graph and ceilings.graph_launch_ns else ceilings.launch_ns
    streamed = ceilings.level_for(sum(cost.streamed_bytes for cost in costs))
    made = []
    for cost in costs:
        local = ceilings.level_for(cost.local_bytes)
        memory = (cost.streamed_bytes / streamed.read.median + cost.local_bytes / local.read.median) * 1e9
        compute_ns, launch_ns = cost.flops / peak * 1e9, cost.launches * launch.median
        largest = streamed if cost.streamed_bytes >= cost.local_bytes else local
        parts = {largest.name: memory, f"matrix {compute}": compute_ns, LAUNCH: launch_ns}
        made.append(Floor(cost, memory, compute_ns, launch_ns, max(parts, key=lambda name: parts[name])))
    return tuple(made)


def fits_in_cache(costs: Sequence[OpCost], ceilings: Ceilings) -> bool:
    """Whether all that a step streams stays in the last-level cache: conclusions about memory bandwidth then do not
    hold, because nothing comes from memory."""
    return ceilings.level_for(sum(cost.streamed_bytes for cost in costs)) is not ceilings.memory
