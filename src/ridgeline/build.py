"""build: the only room where names become objects, and where logic meets tensors. Imports torch only when it builds.

`make_engine` runs in the engine's process (or in this one): the process that serves HTTP imports this module, but calls
nothing that loads torch.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridgeline.core.checkpoint import read_spec
from ridgeline.core.config import Config, parse_bytes
from ridgeline.core.cost import Formats, StepBytes, resident_bytes
from ridgeline.core.errors import ConfigError
from ridgeline.core.spec import GPT2_SHAPES, ModelSpec
from ridgeline.core.stopwatch import Stopwatch
from ridgeline.engine.channel import Report
from ridgeline.engine.engine import Engine, NullSink, Sink
from ridgeline.engine.messages import EngineInfo
from ridgeline.engine.meter import Meter
from ridgeline.engine.profiling import NoProfiler, Profiler, Profiling
from ridgeline.kv.ledger import Ledger
from ridgeline.menu import MENU
from ridgeline.scheduler.policies import Policy
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits

if TYPE_CHECKING:
    import torch

    from ridgeline.attention.base import AnyAttention
    from ridgeline.device.base import Device
    from ridgeline.models.gpt2 import GPT2
    from ridgeline.models.linear import Scheme
    from ridgeline.runner.determinism import Determinism
    from ridgeline.runner.memory import MemoryPlan
    from ridgeline.runner.places import Around
    from ridgeline.runner.runner import Runner


@dataclass(frozen=True, slots=True)
class EngineOrder:
    """What to build: the options, and the folder of the checkpoint (None: random weights of the configured shape).

    profiles: where traces of the running engine go; None: nobody can ask for one. cache: where compiled kernels are
    kept between runs; None: they are compiled for this process alone. sink: what sees every step.
    """

    config: Config
    name: str
    weights: Path | None
    profiles: Path | None = None
    cache: Path | None = None
    sink: Sink = field(default_factory=NullSink)

    def spec(self) -> ModelSpec:
        """Raises ModelError for a folder that cannot be served."""
        return GPT2_SHAPES[str(self.config.model.random_weights)] if self.weights is None else read_spec(self.weights)


def chosen(option: str, name: str) -> Any:
    """The object that MENU names for an option's choice."""
    module, _, attribute = MENU[option][name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def make_engine(order: EngineOrder, report: Report, shared: Loaded | None = None) -> tuple[Engine, EngineInfo]:
    """Build an engine and warm it up. report: called with (phase, done, total) while it goes on.

    shared: a device and a model that other engines use too, loaded with the same model options, so that several
    engines can be compared without as many copies of the weights.
    Raises ConfigError, with the numbers, for what cannot work.
    """
    clock = Stopwatch()
    report("importing torch", 0, 0)
    from ridgeline.device.choose import choose, missing_cuda_hint
    from ridgeline.device.kept import memory_rate
    from ridgeline.runner.places import wrap_places

    clock.lap("import torch")
    options = order.config.model
    if shared is None:
        device = choose(options.device, options.dtype, options.threads)
        scheme, notes = make_scheme(order, device, report)
    else:
        device, notes = shared.device, shared.notes
    clock.lap("device")
    around = outer_ranges(order.config)
    limits = engine_limits(order.config, order.spec(), device.step_tokens)
    attending = choose_attention(order, device)
    plan = plan_engine_memory(order, limits, device, attending)
    scheduler = make_scheduler(order.config, limits, plan.num_blocks, plan.block_size)
    clock.lap("memory plan")
    report("loading weights", 0, 0)
    model = load_model(order, device, scheme, report) if shared is None else shared.model
    clock.lap("load weights")
    report("warming up", 0, 0)
    runner = make_runner(order.config, model, device, limits, plan, attending)
    runner.warm_up()
    if around is not None:
        wrap_places(runner, around)
    profiler = make_profiler(order, runner)
    clock.lap("warm up")
    streamed = step_bytes(order, device, attending)
    rate = memory_rate(order.cache, device, streamed.turn)
    info = EngineInfo(
        model=order.name,
        dtype=str(device.dtype).removeprefix("torch."),
        device=device.name,
        max_model_len=limits.max_len,
        vocab=model.spec.vocab,
        block_size=plan.block_size,
        num_blocks=plan.num_blocks,
        kv_block_bytes=plan.block_bytes,
        weight_bytes=plan.weights_bytes,
        memory_plan=plan.describe(),
        batching=order.config.batching.batching,
        notes=(*filter(None, [missing_cuda_hint(), attending.note]), *notes),
        start_ms=clock.laps_ms,
        memory_bytes_per_s=rate[0] if rate else None,
        memory_of=rate[1] if rate else None,
    )
    depth = order.config.batching.launches_in_flight
    engine = Engine(scheduler, runner, time.perf_counter_ns, order.sink, depth, profiler, runner, Meter(streamed))
    return engine, info


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


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """slots: requests that run at once. budget: tokens of a step at most."""

    policy: Policy
    slots: int
    max_len: int
    budget: int


def engine_limits(config: Config, spec: ModelSpec, step_tokens: int) -> EngineLimits:
    """Fill in what the operator left open. Raises ConfigError for limits that exclude each other.

    step_tokens: of a step, as many as the device can make use of.
    """
    max_len = config.model.max_model_len or spec.max_positions
    if max_len > spec.max_positions:
        raise ConfigError(f"--max-model-len {max_len}: this model has only {spec.max_positions} positions")
    policy: Policy = chosen("batching", config.batching.batching).of(config.batching)
    slots = config.limits.max_num_seqs
    if policy.max_batch is not None:
        slots = min(slots, policy.max_batch)
    chunked = config.batching.chunked_prefill is not False
    keeps: bool = chosen("kv_cache", config.batching.kv_cache).keeps
    budget = config.limits.max_num_batched_tokens
    if budget is None and not policy.divisible:
        budget = slots * max_len  # a batch that nobody joins must fit as a whole, or the budget would make it smaller
    elif budget is None:
        # A prompt that is computed whole must fit beside those who decode, or it waits, and all behind it, for few.
        budget = max(step_tokens, slots, 0 if chunked and keeps else max_len + slots)
    return EngineLimits(policy, slots, max_len, budget)


@dataclass(frozen=True, slots=True)
class Attending:
    """A backend, the format of its cache, and what the operator should know of the choice."""

    attention: AnyAttention
    kv_dtype: torch.dtype
    block_size: int
    note: str | None = None


_ATTENTION = {"cpu": ("native", "reference", "by-row"), "cuda": ("paged", "reference", "paged-rows", "by-row")}
"""What --attention auto takes on a device: the first that the level of determinism admits and that can be had."""


def choose_attention(order: EngineOrder, device: Device) -> Attending:
    """Raises ConfigError where no backend serves what was asked for."""
    from ridgeline.attention.base import CannotAttend, SteadyAttention

    options, spec, level = order.config.batching, order.spec(), determinism(order.config)
    dtype = chosen("kv_dtype", options.kv_dtype).stored(device.dtype)
    asked = options.attention
    offered = (name for name in _ATTENTION[device.torch_device.type] if level.admits(chosen("attention", name)))
    reasons: list[str] = []
    for name in offered if asked == "auto" else (asked,):
        try:
            attention = chosen("attention", name).open(spec, dtype, device, order.cache)
        except CannotAttend as error:
            reasons.append(str(error))
            continue
        if options.graphs == "graph" and not isinstance(attention, SteadyAttention):
            reasons.append(
                f"{name} attention is planned by the host in every step, so --graphs graph has no use for it"
            )
        elif not attention.allows(size := order.config.limits.block_size or attention.prefers):
            reasons.append(f"--attention {name} takes no blocks of --block-size {size}")
        else:
            return Attending(attention, dtype, size, f"{reasons[0]}; it is {name} instead" if reasons else None)
    option = f"--kv-dtype {options.kv_dtype}" if asked == "auto" else f"--attention {asked}"
    raise ConfigError(f"{option}: {', and '.join(reasons)}; leave {option.split()[0]} out")


def plan_engine_memory(order: EngineOrder, limits: EngineLimits, device: Device, attending: Attending) -> MemoryPlan:
    from ridgeline.device.base import BYTES_OF
    from ridgeline.runner.memory import graph_bytes, plan_memory, workspace_bytes

    spec, kv_memory, block_size = order.spec(), order.config.limits.kv_memory, attending.block_size
    packing = chosen("packing", order.config.batching.packing)
    positions = packing.most_positions(limits.slots, limits.budget, limits.max_len)
    workspace = workspace_bytes(spec, positions, limits.slots, limits.max_len, BYTES_OF[device.compute])
    if device.captures and order.config.batching.graphs != "eager":
        workspace += graph_bytes(spec, limits.slots, limits.max_len, BYTES_OF[device.compute])
    return plan_memory(
        free_bytes=device.free_memory_bytes(),
        weight_bytes=resident_bytes(spec, chosen("quantize", order.config.model.quantize).bits(device)),
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


def step_bytes(order: EngineOrder, device: Device, attending: Attending) -> StepBytes:
    """What this model's steps stream at least, stored as it is here."""
    from ridgeline.device.base import BYTES_OF

    scale_bits = chosen("kv_dtype", order.config.batching.kv_dtype).scale_bits
    weight_bits = chosen("quantize", order.config.model.quantize).bits(device)
    compute = str(device.compute).removeprefix("torch.")
    kv_bits = 8 * attending.kv_dtype.itemsize
    return StepBytes.of_model(
        order.spec(), Formats(weight_bits, kv_bits, 8 * BYTES_OF[device.compute], compute, scale_bits)
    )


def useful_sequences(config: Config, slots: int, *, given: bool) -> int:
    """How many sequences of the longest the KV cache should hold at most. given: the operator said how much memory.

    Earlier requests whose blocks may be found again get as much room as those that run: more would help, but a server
    should not take all memory of its machine unasked. Without a cache every launch in flight has scratch of its own.
    """
    if not chosen("kv_cache", config.batching.kv_cache).keeps:
        return slots * config.batching.launches_in_flight
    if not _shares(config):
        return slots
    return sys.maxsize if given else 2 * slots


def _shares(config: Config) -> bool:
    """Whether blocks of earlier requests are found again."""
    options = config.batching
    keeps: bool = chosen("kv_cache", options.kv_cache).keeps
    return keeps if options.prefix_cache is None else options.prefix_cache


def make_scheme(order: EngineOrder, device: Device, report: Report) -> tuple[Scheme, tuple[str, ...]]:
    """How weights are held, and what the operator should know of it. Raises ConfigError."""
    report("preparing kernels", 0, 0)
    scheme: Scheme = chosen("quantize", order.config.model.quantize).of(device, order.cache)
    return determinism(order.config).scheme(scheme, device), scheme.notes


def load_model(order: EngineOrder, device: Device, scheme: Scheme, report: Report) -> GPT2:
    from ridgeline.models.gpt2_weights import load_gpt2, random_gpt2

    if order.weights is None:
        return random_gpt2(order.spec(), order.config.model.seed, scheme, device)
    progress: Callable[[int, int], None] = lambda done, total: report("loading weights", done, total)  # noqa: E731
    return load_gpt2(order.spec(), order.weights, scheme, device, progress)


def determinism(config: Config) -> Determinism:
    level: Determinism = chosen("determinism", config.model.determinism)()
    return level


def make_runner(
    config: Config, model: GPT2, device: Device, limits: EngineLimits, plan: MemoryPlan, attending: Attending
) -> Runner:
    from ridgeline.runner.runner import Runner
    from ridgeline.runner.slots import Sizes

    sizes = Sizes(limits.slots, limits.max_len, plan.num_blocks, plan.block_size)
    packing = chosen("packing", config.batching.packing)()
    graphs = chosen("graphs", graphs_choice(config, device, attending.attention))
    return Runner(model, attending.attention, packing, device, sizes, attending.kv_dtype, graphs)


def graphs_choice(config: Config, device: Device, attention: AnyAttention) -> str:
    """A name in MENU."""
    from ridgeline.attention.base import SteadyAttention

    options = config.batching
    if config.model.determinism != "off":
        return "eager"  # when a step is captured depends on the time, and a replay is padded to its size
    if options.graphs != "auto":
        return options.graphs
    keeps: bool = chosen("kv_cache", options.kv_cache).keeps
    pays = isinstance(attention, SteadyAttention) and attention.reads_contexts and keeps and device.captures
    return "graph" if pays else "eager"


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


def make_scheduler(config: Config, limits: EngineLimits, num_blocks: int, block_size: int) -> Scheduler:
    options = config.batching
    kept: type[Ledger] = chosen("kv_cache", options.kv_cache)
    ledger = kept(
        slots=limits.slots,
        max_len=limits.max_len,
        num_blocks=num_blocks,
        block_size=block_size,
        prefix=chosen("prefix_cache", "on" if _shares(config) else "off")(),
    )
    rules = SchedulerLimits(
        limits.slots,
        limits.max_len,
        limits.budget,
        horizon=options.max_steps_per_visit,
        chunked=options.chunked_prefill is not False,
    )
    return Scheduler(limits.policy, ledger, rules)
