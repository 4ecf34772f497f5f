"""Places: where a model's operations sit, by name, and a way to put something around each. Knows no clock, no profiler.

Names and regions are those of core/cost.py, so that what is observed here lies beside what was predicted there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ridgeline.device.trace import Ranges
from ridgeline.runner.graphs import NoGraphs
from ridgeline.runner.runner import Runner

Operation = Callable[..., Any]
Around = Callable[[str, str, Operation], Operation]
"""(place, region, operation) -> what is called instead; it must return what the operation returns."""

REGION_OF = {
    "host": "host",
    "embedding": "embedding",
    "attention_plan": "attention",
    "norm_1": "norm",
    "qkv": "qkv",
    "attention": "attention",
    "attn_out": "projection",
    "norm_2": "norm",
    "mlp_in": "mlp",
    "mlp_out": "mlp",
    "norm": "norm",
    "head": "head",
    "sampling": "sampling",
}
"""Every place and the region that it belongs to: the host first, then in the order of a step.

Cutting a batch for a backend is that backend's price, so it counts as attention, under a name of its own."""
HOST = "host"
"""Planning, packing, uploads, dispatch between operations, the download, the commit: no operation of the model."""

_AT_ENDS = ("embedding", "norm", "head")
_IN_BLOCK = ("norm_1", "qkv", "attn_out", "norm_2", "mlp_in", "mlp_out")


def wrap_places(runner: Runner, around: Around) -> Callable[[], None]:
    """Put `around` around every operation of the runner, between two launches. Returns what takes it off again.

    Until then no step is a replay, because nobody sees into one. The operations of all layers have one name. Wrappers
    may lie around each other; they come off in the reverse order.
    The model may be shared with other runners: they see its wrappers too.
    """
    eager = runner.eager
    model: Any = eager.model
    holders: list[tuple[Any, str, str]] = [(model, place, place) for place in _AT_ENDS]
    holders += [(block, place, place) for block in model.blocks for place in _IN_BLOCK]
    holders += [(eager, "plan", "attention_plan"), (eager, "attend", "attention"), (runner, "sampler", "sampling")]
    before = [(holder, name, getattr(holder, name)) for holder, name, _ in holders]
    wrapped = [
        around(place, REGION_OF[place], operation)
        for (_, _, place), (_, _, operation) in zip(holders, before, strict=True)
    ]
    for (holder, name, _), operation in zip(holders, wrapped, strict=True):
        setattr(holder, name, operation)
    graphs, runner.graphs = runner.graphs, NoGraphs()

    def undo() -> None:
        runner.graphs = graphs
        for holder, name, operation in before:
            setattr(holder, name, operation)

    return undo


def ranged(ranges: Ranges) -> Around:
    """Every operation inside a range that has the place's name."""

    def around(place: str, _region: str, operation: Operation) -> Operation:
        def run(*given: Any, **named: Any) -> Any:
            with ranges.range(place):
                return operation(*given, **named)

        return run

    return around
