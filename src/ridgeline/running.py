"""Running: an engine's runner with its memory, its graphs, and what it is given later. Joins them with the options.

Imports torch only when it makes something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ridgeline.attending import Attending, Opening
from ridgeline.core.config import Config, parse_bytes
from ridgeline.core.cost import resident_bytes
from ridgeline.core.spec import ModelSpec
from ridgeline.engine.engine import Upkeep, Upkeeps
from ridgeline.menu import chosen
from ridgeline.replaying import choose_graphs, graphs_choice
from ridgeline.sizing import EngineLimits, useful_sequences

if TYPE_CHECKING:
    from ridgeline.core.steptime import TimedSteps
    from ridgeline.device.base import Device
    from ridgeline.models.gpt2 import GPT2
    from ridgeline.ops.coming import Coming
    from ridgeline.runner.memory import MemoryPlan
    from ridgeline.runner.runner import Runner

UNDERSTUDY_SEATS, UNDERSTUDY_TOKENS = 8, 128
"""Rows, and tokens that its cache has room for. Its warm-up needs one and 68."""


@dataclass(frozen=True, slots=True)
class Running:
    """What a runner is made from. quantize: how weights are held, a name in MENU. cache: of compiled kernels."""

    config: Config
    spec: ModelSpec
    device: Device
    limits: EngineLimits
    attending: Attending
    quantize: str
    cache: Path | None

    def memory(self) -> MemoryPlan:
        """Raises ConfigError, with the numbers, for what cannot work."""
        from ridgeline.device.base import BYTES_OF
        from ridgeline.runner.graphs import count_of, tokens_of
        from ridgeline.runner.memory import graph_bytes, plan_memory, workspace_bytes

        spec, limits, device, attending = self.spec, self.limits, self.device, self.attending
        kv_memory, block_size = self.config.limits.kv_memory, attending.block_size
        packing = chosen("packing", self.config.batching.packing)
        positions = packing.most_positions(limits.slots, limits.budget, limits.max_len)
        workspace = workspace_bytes(spec, positions, limits.slots, limits.max_len, BYTES_OF[device.compute])
        graphs, count = 0, count_of(limits.slots, limits.budget)
        if device.captures and graphs_choice(self.config, device, attending.attention) != "eager":
            tokens = tokens_of(limits.budget)[-1]
            graphs = graph_bytes(spec, limits.slots, tokens, limits.max_len, BYTES_OF[device.compute], count)
        return plan_memory(
            free_bytes=device.free_memory_bytes(),
            weight_bytes=resident_bytes(spec, chosen("quantize", self.quantize).bits(device)),
            block_bytes=attending.attention.block_bytes(spec, block_size, attending.kv_dtype),
            workspace=workspace,
            graphs=graphs,
            positions=positions,
            slots=limits.slots,
            useful_sequences=useful_sequences(self.config, limits.slots, given=kv_memory is not None),
            max_model_len=limits.max_len,
            block_size=block_size,
            share_percent=device.kv_share_percent,
            kv_memory=None if kv_memory is None else parse_bytes(kv_memory),
        )

    def runner(self, model: GPT2, num_blocks: int, *, later: bool = False) -> Runner:
        """later: its graphs are made when they are taken (runner/arriving.py). Raises ConfigError."""
        from ridgeline.runner.arriving import Later
        from ridgeline.runner.runner import Runner
        from ridgeline.runner.slots import Sizes

        limits, attending = self.limits, self.attending
        sizes = Sizes(limits.slots, limits.max_len, num_blocks, attending.block_size, limits.budget)
        packing = chosen("packing", self.config.batching.packing)()
        graphs = choose_graphs(self.config, self.device, attending.attention, self.cache)
        kind = partial(Later, graphs) if later else graphs
        return Runner(model, attending.attention, packing, self.device, sizes, attending.kv_dtype, kind)

    def understudy(self, model: GPT2) -> Runner:
        """A small one over the same model, that attends by kernels from the start."""
        from ridgeline.attention.paged import Paged

        limits = replace(self.limits, slots=min(self.limits.slots, UNDERSTUDY_SEATS))
        small = replace(self, limits=limits, attending=replace(self.attending, attention=Paged()))
        return small.runner(model, -(-UNDERSTUDY_TOKENS // self.attending.block_size))

    def upkeep(
        self, model: GPT2, runner: Runner, coming: Coming | None, timed: Callable[[TimedSteps | None], None],
        told: Callable[[str], None],
    ) -> Upkeep:  # fmt: skip
        """What is made ready between steps: what the runner replays, and kernels that are still being compiled. timed,
        told: as runner.arriving.Arriving has them."""
        from ridgeline.attention.native_soon import Soon
        from ridgeline.attention.paged_soon import PagedSoon
        from ridgeline.runner.arriving import Arriving, Later

        attention = self.attending.attention
        if isinstance(attention, Soon):
            return Upkeeps((attention, runner))
        if coming is None:
            return runner
        assert isinstance(attention, PagedSoon)
        assert isinstance(runner.graphs, Later)
        taken = attention, runner.graphs
        return Upkeeps((Arriving(coming, partial(self.understudy, model), taken, timed, told), runner))


def opening_on(device: Device, opening: Opening, quantize: str) -> Opening:
    """Weights of fewer bits wait on a GPU: without kernels every step would widen all of them."""
    return "open" if device.torch_device.type != "cpu" and quantize != "none" else opening


def coming_kernels(device: Device, attending: Attending, cache: Path | None) -> Coming | None:
    """What products are given when attention is given its own; None: it has them. cache: of kernels that work."""
    from ridgeline.attention.paged_soon import PagedSoon
    from ridgeline.ops.coming import Coming
    from ridgeline.ops.gemv import few_rows

    if not isinstance(attending.attention, PagedSoon):
        return None
    return Coming(partial(few_rows, device.torch_device, device.compute, cache))
