"""build: the only room where names become objects, and where logic meets tensors. Imports torch only when it builds.

`make_engine` runs in the engine's process (or in this one): the process that serves HTTP imports this module, but calls
nothing that loads torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from ridgeline.attending import Attending, Opening, choose_attention, determinism
from ridgeline.core import advice
from ridgeline.core.checkpoint import read_spec
from ridgeline.core.config import Config, parse_bytes
from ridgeline.core.cost import StepBytes, resident_bytes
from ridgeline.core.errors import ConfigError
from ridgeline.core.quantisation import saved_scheme
from ridgeline.core.spec import GPT2_SHAPES, ModelSpec
from ridgeline.core.steptime import StepTime
from ridgeline.core.stopwatch import Stopwatch
from ridgeline.engine.channel import Report
from ridgeline.engine.engine import Engine, NullSink, Sink, Upkeep, Upkeeps
from ridgeline.engine.messages import EngineInfo
from ridgeline.engine.meter import Meter
from ridgeline.engine.profiling import NoProfiler, Profiler, Profiling
from ridgeline.kv.ledger import Ledger
from ridgeline.menu import chosen
from ridgeline.replaying import choose_graphs
from ridgeline.scheduler.pace import Pace, Paced, Unpaced
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits
from ridgeline.sizing import EngineLimits, engine_limits, pace_goal_ns, shares, useful_sequences

if TYPE_CHECKING:
    from ridgeline.device.base import Device
    from ridgeline.models.gpt2 import GPT2
    from ridgeline.models.linear import Scheme
    from ridgeline.runner.memory import MemoryPlan
    from ridgeline.runner.places import Around
    from ridgeline.runner.runner import Runner


@dataclass(frozen=True, slots=True)
class EngineOrder:
    """What to build: the options, and the folder of the checkpoint (None: random weights of the configured shape).

    profiles: where traces of the running engine go; None: nobody can ask for one. cache: where compiled kernels are
    kept between runs; None: they are compiled for this process alone. opening: whether the engine serves before its
    kernels are compiled, where it can; nothing that is measured should change in the middle. sink: what sees every
    step.
    """

    config: Config
    name: str
    weights: Path | None
    profiles: Path | None = None
    cache: Path | None = None
    sink: Sink = field(default_factory=NullSink)
    opening: Opening = "open"

    @property
    def saved(self) -> str | None:
        """The scheme that the checkpoint is saved in, if it is. Raises ModelError."""
        return None if self.weights is None else saved_scheme(self.weights)

    @property
    def quantize(self) -> str:
        """How weights are held, a name in MENU. Raises ConfigError where the checkpoint is saved otherwise."""
        asked, saved = self.config.model.quantize, self.saved
        if saved is None or asked == saved:
            return asked
        if asked != "none":
            raise ConfigError(
                f"--quantize {asked}: {self.name} is saved as {saved} already; leave the option out, or take the model "
                "that it was made from"
            )
        return saved

    def spec(self) -> ModelSpec:
        """Raises ModelError for a folder that cannot be served."""
        return GPT2_SHAPES[str(self.config.model.random_weights)] if self.weights is None else read_spec(self.weights)


def make_engine(order: EngineOrder, report: Report, shared: Loaded | None = None) -> tuple[Engine, EngineInfo]:
    """Build an engine and warm it up. report: called with (phase, done, total) while it goes on.

    shared: a device and a model that other engines use too, loaded with the same model options, so that several
    engines can be compared without as many copies of the weights.
    Raises ConfigError, with the numbers, for what cannot work.
    """
    clock = Stopwatch()
    report("importing torch", 0, 0)
    from ridgeline.device.choose import choose
    from ridgeline.runner.places import wrap_places

    clock.lap("import torch")
    options = order.config.model
    if shared is None:
        device = choose(options.device, options.dtype, options.threads)
        clock.lap("device")
        scheme, notes = make_scheme(order, device, report)
    else:
        device, notes = shared.device, shared.notes
    clock.lap("kernels")
    around = outer_ranges(order.config)
    limits = engine_limits(order.config, order.spec(), device.step_tokens)
    attending = choose_attention(order.config, order.spec(), device, order.cache, order.opening)
    plan = plan_engine_memory(order, limits, device, attending)
    scheduler = make_scheduler(order.config, limits, plan.num_blocks, plan.block_size)
    clock.lap("memory plan")
    report("loading weights", 0, 0)
    model = load_model(order, device, scheme, report) if shared is None else shared.model
    clock.lap("load weights")
    report("warming up", 0, 0)
    runner = make_runner(order, model, device, limits, plan, attending)
    runner.warm_up()
    clock.lap("warm up")
    scheduler.keep(make_pace(order, device, attending, runner, limits))
    clock.lap("time steps")
    if around is not None:
        wrap_places(runner, around)
    profiler = make_profiler(order, runner)
    streamed = StepBytes.of_model(order.spec(), attending.formats(order.quantize, device))
    info = engine_info(order, device, limits, plan, attending, streamed)
    depth = order.config.batching.launches_in_flight
    upkeep, meter = make_upkeep(runner, attending), Meter(streamed)
    engine = Engine(scheduler, runner, time.perf_counter_ns, order.sink, depth, profiler, upkeep, meter)
    return engine, structs.replace(info, notes=(*info.notes, *notes), start_ms=clock.laps_ms)


def engine_info(
    order: EngineOrder, device: Device, limits: EngineLimits, plan: MemoryPlan, attending: Attending,
    streamed: StepBytes,
) -> EngineInfo:  # fmt: skip
    """What the front and the start log are told of an engine, but for what its start took."""
    from ridgeline.device.choose import missing_cuda_hint
    from ridgeline.device.kept import memory_rate

    rate = memory_rate(order.cache, device, streamed.turn)
    return EngineInfo(
        model=order.name,
        dtype=str(device.dtype).removeprefix("torch."),
        device=device.name,
        max_model_len=limits.max_len,
        vocab=order.spec().vocab,
        block_size=plan.block_size,
        num_blocks=plan.num_blocks,
        kv_block_bytes=plan.block_bytes,
        weight_bytes=plan.weights_bytes,
        memory_plan=plan.describe(),
        batching=order.config.batching.batching,
        notes=tuple(filter(None, [missing_cuda_hint(), attending.note, advise(order, device, attending)])),
        start_ms={},
        memory_bytes_per_s=rate[0] if rate else None,
        memory_of=rate[1] if rate else None,
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on its device. notes: for the operator, of how its weights are held."""

    device: Device
    model: GPT2
    notes: tuple[str, ...] = ()


def load(order: EngineOrder, report: Report) -> Loaded:
    """Device and weights alone, for several engines. Raises ConfigError."""
    from ridgeline.device.choose import choose

    options = order.config.model
    device = choose(options.device, options.dtype, options.threads)
    scheme, notes = make_scheme(order, device, report)
    return Loaded(device, load_model(order, device, scheme, report), notes)


def plan_engine_memory(order: EngineOrder, limits: EngineLimits, device: Device, attending: Attending) -> MemoryPlan:
    from ridgeline.device.base import BYTES_OF
    from ridgeline.runner.graphs import tokens_of
    from ridgeline.runner.memory import graph_bytes, plan_memory, workspace_bytes

    spec, kv_memory, block_size = order.spec(), order.config.limits.kv_memory, attending.block_size
    packing = chosen("packing", order.config.batching.packing)
    positions = packing.most_positions(limits.slots, limits.budget, limits.max_len)
    workspace = workspace_bytes(spec, positions, limits.slots, limits.max_len, BYTES_OF[device.compute])
    if device.captures and order.config.batching.graphs != "eager":
        tokens = tokens_of(limits.budget)[-1]
        workspace += graph_bytes(spec, limits.slots, tokens, limits.max_len, BYTES_OF[device.compute])
    return plan_memory(
        free_bytes=device.free_memory_bytes(),
        weight_bytes=resident_bytes(spec, chosen("quantize", order.quantize).bits(device)),
        block_bytes=attending.attention.block_bytes(spec, block_size, attending.kv_dtype),
        workspace=workspace,
        positions=positions,
        slots=limits.slots,
        useful_sequences=useful_sequences(order.config, limits.slots, given=kv_memory is not None),
        max_model_len=limits.max_len,
        block_size=block_size,
        share_percent=device.kv_share_percent,
        kv_memory=None if kv_memory is None else parse_bytes(kv_memory),
    )


def make_scheme(order: EngineOrder, device: Device, report: Report) -> tuple[Scheme, tuple[str, ...]]:
    """How weights are held, and what the operator should know of it. Raises ConfigError."""
    report("preparing kernels", 0, 0)
    scheme: Scheme = chosen("quantize", order.quantize).of(device, order.cache)
    return determinism(order.config).scheme(scheme, device), scheme.notes


def load_model(order: EngineOrder, device: Device, scheme: Scheme, report: Report) -> GPT2:
    from ridgeline.models.gpt2_weights import load_gpt2, random_gpt2
    from ridgeline.models.saved import load_saved, multiplies_saved

    if order.weights is None:
        return random_gpt2(order.spec(), order.config.model.seed, scheme, device)
    progress: Callable[[int, int], None] = lambda done, total: report("loading weights", done, total)  # noqa: E731
    if order.saved is not None:
        return load_saved(order.spec(), order.weights, multiplies_saved(order.name, scheme, device), device, progress)
    return load_gpt2(order.spec(), order.weights, scheme, device, progress)


def make_runner(
    order: EngineOrder, model: GPT2, device: Device, limits: EngineLimits, plan: MemoryPlan, attending: Attending
) -> Runner:
    """Raises ConfigError."""
    from ridgeline.runner.runner import Runner
    from ridgeline.runner.slots import Sizes

    config = order.config
    sizes = Sizes(limits.slots, limits.max_len, plan.num_blocks, plan.block_size, limits.budget)
    packing = chosen("packing", config.batching.packing)()
    graphs = choose_graphs(config, order.quantize, device, attending.attention, order.cache)
    return Runner(model, attending.attention, packing, device, sizes, attending.kv_dtype, graphs)


def outer_ranges(config: Config) -> Around | None:
    """Names the model's places for nsys and ncu, if that was asked for. Raises ConfigError where torch cannot."""
    from ridgeline.device.trace import NvtxRanges
    from ridgeline.runner.places import ranged

    return ranged(NvtxRanges()) if config.server.nvtx else None


def make_upkeep(runner: Runner, attending: Attending) -> Upkeep:
    """What is made ready between steps: what the runner replays, and a kernel that is still being compiled."""
    from ridgeline.attention.native_soon import Soon

    attention = attending.attention
    return Upkeeps((attention, runner)) if isinstance(attention, Soon) else runner


def make_profiler(order: EngineOrder, runner: Runner) -> Profiler:
    from ridgeline.runner.recorder import Recorder

    if order.profiles is None:
        return NoProfiler()
    return Profiling(Recorder(runner), order.profiles, time.perf_counter_ns)


def make_pace(order: EngineOrder, device: Device, attending: Attending, runner: Runner, limits: EngineLimits) -> Pace:
    """How much of prompts a step takes where others decode in it; two steps are timed for it, if it is wanted."""
    from ridgeline.runner.timing import time_steps

    goal_ns = pace_goal_ns(order.config, limits)
    timed = None if goal_ns is None else time_steps(runner)
    if goal_ns is None or timed is None:
        return Unpaced()
    formats = attending.formats(order.quantize, device)
    return Paced(goal_ns, StepTime.fitted(order.spec(), formats, limits.max_len // 2, timed))


def advise(order: EngineOrder, device: Device, attending: Attending) -> str | None:
    """What would be faster, if anything is."""
    from ridgeline.device.jit import can_compile

    if device.torch_device.type != "cpu":
        return advice.on_a_gpu(order.config)
    formats, int8 = attending.formats(order.quantize, device), chosen("quantize", "int8").bits(device)
    return advice.on_a_cpu(order.spec(), formats, order.config, int8, compiles=can_compile())


def make_scheduler(config: Config, limits: EngineLimits, num_blocks: int, block_size: int) -> Scheduler:
    options = config.batching
    kept: type[Ledger] = chosen("kv_cache", options.kv_cache)
    ledger = kept(
        slots=limits.slots,
        max_len=limits.max_len,
        num_blocks=num_blocks,
        block_size=block_size,
        prefix=chosen("prefix_cache", "on" if shares(config) else "off")(),
    )
    rules = SchedulerLimits(
        limits.slots,
        limits.max_len,
        limits.budget,
        horizon=options.max_steps_per_visit,
        chunked=options.chunked_prefill is not False,
    )
    return Scheduler(limits.policy, ledger, rules)
