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
from ridgeline.core.config import Config
from ridgeline.core.cost import StepBytes
from ridgeline.core.errors import ConfigError
from ridgeline.core.quantisation import saved_scheme
from ridgeline.core.spec import GPT2_SHAPES, ModelSpec
from ridgeline.core.steptime import StepTime, TimedSteps
from ridgeline.core.stopwatch import Stopwatch
from ridgeline.engine.channel import Report
from ridgeline.engine.engine import Engine, NullSink, Sink
from ridgeline.engine.messages import EngineInfo
from ridgeline.engine.meter import Meter
from ridgeline.engine.profiling import NoProfiler, Profiler, Profiling
from ridgeline.kv.ledger import Ledger
from ridgeline.menu import chosen
from ridgeline.running import Running, coming_kernels, opening_on
from ridgeline.scheduler.pace import Pace, Paced, Unpaced
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits
from ridgeline.sizing import EngineLimits, engine_limits, pace_goal_ns, shares

if TYPE_CHECKING:
    from ridgeline.device.base import Device
    from ridgeline.models.gpt2 import GPT2
    from ridgeline.models.linear import Scheme
    from ridgeline.ops.coming import Coming
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
    from ridgeline.runner.timing import time_steps

    clock.lap("import torch")
    options = order.config.model
    device = choose(options.device, options.dtype, options.threads) if shared is None else shared.device
    clock.lap("device")
    spec, opening = order.spec(), opening_on(device, order.opening, order.quantize)
    attending = choose_attention(order.config, spec, device, order.cache, opening)
    coming = coming_kernels(device, attending, order.cache)
    if shared is None:
        scheme, notes = make_scheme(order, device, report, coming)
    else:
        notes = shared.notes
    clock.lap("kernels")
    around = outer_ranges(order.config)
    limits = engine_limits(order.config, spec, device.step_tokens)
    running = Running(order.config, spec, device, limits, attending, order.quantize, order.cache)
    plan = running.memory()
    scheduler = make_scheduler(order.config, limits, plan.num_blocks, plan.block_size)
    clock.lap("memory plan")
    report("loading weights", 0, 0)
    model = load_model(order, device, scheme, report) if shared is None else shared.model
    clock.lap("load weights")
    report("warming up", 0, 0)
    runner = running.runner(model, plan.num_blocks, later=coming is not None)
    if coming is None:
        runner.warm_up()
    else:
        runner.rehearse()
    clock.lap("warm up")
    paced: Callable[[TimedSteps | None], None] = lambda timed: scheduler.keep(make_pace(running, timed))  # noqa: E731
    paced(None if pace_goal_ns(order.config, limits) is None else time_steps(runner))
    clock.lap("time steps")
    if around is not None:
        wrap_places(runner, around)
    profiler = make_profiler(order, runner)
    streamed = StepBytes.of_model(spec, attending.formats(order.quantize, device))
    info = engine_info(order, device, limits, plan, attending, streamed)
    depth = order.config.batching.launches_in_flight
    upkeep = running.upkeep(model, runner, coming, paced, told=lambda text: report(text, 0, 0))
    engine = Engine(scheduler, runner, time.perf_counter_ns, order.sink, depth, profiler, upkeep, Meter(streamed))
    beside = "" if coming is None else "compiling kernels"
    notes = (*info.notes, *notes)
    return engine, structs.replace(info, notes=notes, start_ms=clock.laps_ms, beside=beside)


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


def make_scheme(
    order: EngineOrder, device: Device, report: Report, coming: Coming | None = None
) -> tuple[Scheme, tuple[str, ...]]:
    """How weights are held, and what the operator should know of it. coming: kernels that are compiled later; None:
    now. Raises ConfigError."""
    from ridgeline.models.linear_cuda import CudaDense

    report("preparing kernels", 0, 0)
    scheme: Scheme
    if coming is None:
        scheme = chosen("quantize", order.quantize).of(device, order.cache)
    else:
        scheme = CudaDense(coming, device.compute)
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


def outer_ranges(config: Config) -> Around | None:
    """Names the model's places for nsys and ncu, if that was asked for. Raises ConfigError where torch cannot."""
    from ridgeline.device.trace import NvtxRanges
    from ridgeline.runner.places import ranged

    return ranged(NvtxRanges()) if config.server.nvtx else None


def make_profiler(order: EngineOrder, runner: Runner) -> Profiler:
    from ridgeline.runner.recorder import Recorder

    if order.profiles is None:
        return NoProfiler()
    return Profiling(Recorder(runner), order.profiles, time.perf_counter_ns)


def make_pace(running: Running, timed: TimedSteps | None) -> Pace:
    """How much of prompts a step takes where others decode in it, by two steps that were timed."""
    goal_ns = pace_goal_ns(running.config, running.limits)
    if goal_ns is None or timed is None:
        return Unpaced()
    formats = running.attending.formats(running.quantize, running.device)
    return Paced(goal_ns, StepTime.fitted(running.spec, formats, running.limits.max_len // 2, timed))


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
