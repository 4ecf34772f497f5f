"""Stepping: how long whole steps take at a chosen batch and context, without HTTP. Knows rigs and clocks; knows no
region and no ceiling.

A step is timed as the engine runs it: scheduler, upload, model, head, sampling and download, by the host's clock. On a
device with a clock of its own as many steps are run again with its timer around them, because its events cost a little.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.device.base import HostTimer

if TYPE_CHECKING:
    from ridgeline.core.spec import ModelSpec
    from ridgeline.device.base import Device
    from ridgeline.lab.machine import Progress
    from ridgeline.lab.rig import Rig, Workbench

_VISITS = 4  # of a round at least: the first and the last of them begin or end with launches that nobody timed
_PROMPTS = 5  # of a round; one takes as long as many decode steps
KIND = "bench step"
Timed = Callable[[Callable[[], None]], float]
"""Runs a step and returns its nanoseconds."""

# What a rig sets itself, or what no step of a rig depends on.
HELD = {
    "model": ("served_model_name", "max_model_len"),
    "batching": ("batching", "batch_window_ms", "max_batch_size", "chunked_prefill", "prefix_cache"),
    "limits": ("max_num_seqs", "max_num_batched_tokens"),
}


@dataclass(frozen=True, slots=True)
class StepOrder:
    """What is asked for. contexts: tokens that every sequence of a batch has before the first timed step. steps: decode
    steps of a round. prefill_tokens: of a prompt that is computed whole; 0: none. Raises ConfigError, naming the
    option."""

    batches: tuple[int, ...] = (1, 8, 32)
    contexts: tuple[int, ...] = (256,)
    steps: int = 48
    rounds: int = 5
    prefill_tokens: int = 512

    def __post_init__(self) -> None:
        for name, value, low in (
            ("steps", self.steps, 1),
            ("rounds", self.rounds, 1),
            ("prefill", self.prefill_tokens, 0),
        ):
            if value < low:
                raise ConfigError(f"--{name}: {value} is too small; it must be at least {low}")

    @property
    def whole(self) -> int:
        """Rounds of all kinds of steps."""
        return self.rounds * (len(self.batches) * len(self.contexts) + (1 if self.prefill_tokens else 0))

    def check(self, spec: ModelSpec) -> None:
        """Raises ConfigError where the model has no room for a sequence."""
        for context in self.contexts:
            if (longest := context + self.steps + 1) > spec.max_positions:
                raise ConfigError(
                    f"--context {context}: with {self.steps} steps after it a sequence grows to {longest} tokens, and "
                    f"this model has {spec.max_positions} positions; take a smaller one or fewer steps"
                )
        if (longest := self.prefill_tokens + 1) > spec.max_positions:
            raise ConfigError(
                f"--prefill {self.prefill_tokens}: with the token after it there are {longest}, and this model has "
                f"{spec.max_positions} positions; take a shorter prompt"
            )


@dataclass(frozen=True, slots=True)
class Timing:
    """One kind of step. tokens: that a decode step gives, or that a prompt has. host_ns, device_ns: [round][step], the
    latter empty where the device has no clock of its own. A launch that decodes several tokens a sequence counts as a
    step for each."""

    what: Literal["decode", "prefill"]
    batch: int
    context: int
    tokens: int
    host_ns: tuple[tuple[float, ...], ...]
    device_ns: tuple[tuple[float, ...], ...] = ()

    @property
    def name(self) -> str:
        if self.what == "prefill":
            return f"prefill, {self.tokens} tokens"
        return f"decode, batch {self.batch}, context {self.context}"

    @property
    def step_ns(self) -> float:
        return median(map(median, self.host_ns))

    def line(self, model: str, threads: int | None) -> dict[str, Any]:
        """One measurement with the fields that a peer's bench prints as well."""
        size = {"batch": self.batch, "context": self.context} if self.what == "decode" else {"tokens": self.tokens}
        rate = round(self.tokens / self.step_ns * 1e9, 1)
        return {"model": model, "what": self.what, **size, "threads": threads, "tokens_per_s": rate}

    def samples(self) -> dict[str, list[float]]:
        """A value for each round."""
        host, device = list(map(median, self.host_ns)), list(map(median, self.device_ns))
        rates = {"tokens_per_s": [self.tokens / ns * 1e9 for ns in host], "step_host_ns": host}
        return rates | ({"step_device_ns": device} if device else {})


def check_free(config: Config) -> None:
    """Raises ConfigError for an option that a rig would overrule."""
    for section, names in HELD.items():
        options = getattr(config, section)
        defaults = {f.name: f.default for f in fields(options)}
        for name in names:
            if getattr(options, name) != defaults[name]:
                raise ConfigError(
                    f"--{name.replace('_', '-')}: means nothing for steps of a batch and a context that are given; "
                    "leave it out"
                )


def check_visits(order: StepOrder, config: Config) -> None:
    """Raises ConfigError where most steps of a round are launched before the first one is timed."""
    ahead = config.batching.max_steps_per_visit * config.batching.launches_in_flight
    if order.batches and ahead > 1 and order.steps < _VISITS * ahead:
        raise ConfigError(
            f"--steps {order.steps}: {ahead} of them are under way at once (--max-steps-per-visit, "
            f"--launches-in-flight); take at least {_VISITS * ahead}"
        )


def each_timing(bench: Workbench, order: StepOrder, progress: Progress) -> Iterator[Timing]:
    """Decode steps at every context and batch, then a prompt; each as soon as it is measured, so that an interrupt
    keeps those before it. Raises ConfigError where the model or the memory has no room for one."""
    order.check(bench.spec)
    check_visits(order, bench.order.config)
    at = 0

    def tell(what: str) -> None:
        nonlocal at
        progress(what, at, order.whole)
        at += 1

    for context in order.contexts:
        for batch in order.batches:
            yield decode(bench, batch, context, order.steps, order.rounds, tell)
    if order.prefill_tokens:
        yield prefill(bench, order.prefill_tokens, 1, order.rounds, tell)


def decode(bench: Workbench, batch: int, context: int, steps: int, rounds: int, tell: Callable[[str], None]) -> Timing:
    """Steps of a whole batch whose sequences have `context` tokens before the first of them."""
    gc.collect()  # engine and rig know each other; this one needs the memory of the cache of the one before
    rig = bench.rig(batch, context + steps // 2, steps)
    host: list[tuple[float, ...]] = []
    device: list[tuple[float, ...]] = []
    own = device_timed(rig.runner.device)
    for _ in range(rounds):
        tell(f"decode, batch {batch}, context {context}")
        host.append(_decoded(rig, host_timed))
        if own is not None:
            device.append(_decoded(rig, own))
    return Timing("decode", batch, context, batch, tuple(host), tuple(device))


def prefill(bench: Workbench, tokens: int, sequences: int, rounds: int, tell: Callable[[str], None]) -> Timing:
    """Steps that compute so many whole prompts of so many tokens each, to their first tokens."""
    gc.collect()
    rig = bench.rig(sequences, tokens, 1)
    host: list[tuple[float, ...]] = []
    device: list[tuple[float, ...]] = []
    own = device_timed(rig.runner.device)
    rig.prompts(tokens, sequences)()
    for _ in range(rounds):
        tell(f"prefill, {tokens} tokens")
        host.append(tuple(host_timed(rig.prompts(tokens, sequences)) for _ in range(_PROMPTS)))
        if own is not None:
            device.append(tuple(own(rig.prompts(tokens, sequences)) for _ in range(_PROMPTS)))
    return Timing("prefill", sequences, tokens, sequences * tokens, tuple(host), tuple(device))


def _decoded(rig: Rig, timed: Timed) -> tuple[float, ...]:
    """Nanoseconds of every step of a round, by token."""
    spent = []
    with rig.decoding() as one:
        left = rig.steps + 1 - rig.last.tokens // rig.batch
        while left > 0:
            ns = timed(one)
            each = rig.last.tokens // rig.batch
            spent.append(ns / each)
            left -= each
    return tuple(spent)


def host_timed(run: Callable[[], None]) -> float:
    begun = time.perf_counter_ns()
    run()
    return float(time.perf_counter_ns() - begun)


def device_timed(device: Device) -> Timed | None:
    """None where the device's clock is the host's."""
    return None if isinstance(device.timer(), HostTimer) else partial(_by_device, device)


def _by_device(device: Device, run: Callable[[], None]) -> float:
    with device.timer() as timer:
        run()
    return float(timer.elapsed_ns)


def settings(config: Config) -> dict[str, Any]:
    """The options of an engine as a run file keeps them, by their names."""
    return {
        k: v for part in ("model", "batching", "limits") for k, v in dataclasses.asdict(getattr(config, part)).items()
    }
