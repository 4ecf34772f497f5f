"""Offline: tokens/s of a seeded load of requests that are all there at once, and how near that is to what single steps
allow. Knows engines and rigs; knows no text and no HTTP.

What the steps allow: the same engine's decode step is timed alone at the mean batch and the mean context that the load
had, and whole prompts of the mean length alone, as many as a step may compute. Then

    allowed seconds = decoded tokens / batch x decode step + prompt tokens x time of a prompt's token

and the share is allowed seconds / seconds. It is an estimate: steps that mix prompts with decoding read the weights
once for both, which raises it; a batch that swells and shrinks, idle rows and the host between steps lower it.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from ridgeline.bench.lengths import Lengths
from ridgeline.bench.workload import Workload
from ridgeline.build import make_engine
from ridgeline.core.errors import ConfigError
from ridgeline.core.types import Sampling
from ridgeline.lab.driving import StepsKept, drive
from ridgeline.lab.stepping import Timing, decode, prefill
from ridgeline.sizing import engine_limits

if TYPE_CHECKING:
    from ridgeline.bench.records import Shape
    from ridgeline.engine.engine import Engine
    from ridgeline.lab.machine import Progress
    from ridgeline.lab.rig import Workbench

KIND = "bench offline"
_FLOOR_STEPS, _FLOOR_ROUNDS = 24, 5
_WARM_TOKENS = 4


@dataclass(frozen=True, slots=True)
class OfflineOrder:
    """What is asked for. prompt, new: tokens of a request, drawn from the seed. stop_ids: tokens that end a request
    before its length; empty: none does. Raises ConfigError, naming the option."""

    requests: int = 64
    prompt: Lengths = field(default=Lengths(32, 512))
    new: Lengths = field(default=Lengths(32, 256))
    seed: int = 0
    rounds: int = 1
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("requests", self.requests), ("rounds", self.rounds)):
            if value < 1:
                raise ConfigError(f"--{name}: {value} is too small; it must be at least 1")

    def check(self, max_model_len: int) -> None:
        """Raises ConfigError where a request could never run."""
        if (longest := self.prompt.high + self.new.high) > max_model_len:
            raise ConfigError(
                f"--prompt-len and --output-len: together up to {longest} tokens, and a sequence has at most "
                f"{max_model_len} here; shorten one of them"
            )

    def loads(self, vocab: int) -> Iterator[list[Shape]]:
        """The requests of a round, without end; no round repeats another's, whose blocks a prefix cache would find."""
        work = Workload("uniform", self.prompt, self.new, prompt_kind="ids", vocab=vocab)
        shapes = work.shapes(self.seed)
        while True:
            yield list(itertools.islice(shapes, self.requests))


@dataclass(frozen=True, slots=True)
class Load:
    """What one round did. batch: rows that gave a token, mean over the steps that gave any. context: tokens that a
    decoded one looked back at, itself included, mean over all decoded."""

    seconds: float
    tokens_in: int
    tokens_out: int
    requests: int
    steps: int
    batch: float
    context: float

    @property
    def rates(self) -> dict[str, float]:
        return {
            "in_tokens_per_s": self.tokens_in / self.seconds,
            "out_tokens_per_s": self.tokens_out / self.seconds,
            "total_tokens_per_s": (self.tokens_in + self.tokens_out) / self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Allowed:
    """Single steps of the same engine, timed alone. step: at the load's mean batch and context; None where no request
    decoded. prompts: whole ones of the mean length."""

    step: Timing | None
    prompts: Timing

    def seconds(self, load: Load) -> float:
        decoded = load.tokens_out - load.requests  # a request's first token comes with its prompt
        decoding = 0.0 if self.step is None else decoded / self.step.batch * self.step.step_ns
        return (decoding + load.tokens_in / self.prompts.tokens * self.prompts.step_ns) / 1e9

    def share(self, load: Load) -> float:
        return self.seconds(load) / load.seconds


def each_load(bench: Workbench, asked: OfflineOrder, progress: Progress) -> Iterator[Load]:
    """Rounds, after a few tokens of every request to warm up. Raises ConfigError for what cannot run."""
    engine, info = make_engine(bench.order, lambda *_: None, bench.loaded)
    asked.check(info.max_model_len)
    loads = asked.loads(info.vocab)
    warm = next(loads)
    progress("warming up", 0, asked.rounds)
    _drive(engine, warm, [min(shape.max_tokens, _WARM_TOKENS) for shape in warm], asked)
    while engine.idle():  # steps that are captured now are not captured while the clock runs
        pass
    for turn in range(asked.rounds):
        progress(f"round {turn + 1}", turn, asked.rounds)
        load = next(loads)
        yield _drive(engine, load, [shape.max_tokens for shape in load], asked)


def allowed(bench: Workbench, loads: Sequence[Load], progress: Progress) -> Allowed:
    """The engine of the loads must be gone: steps of another one are timed, in its memory. Raises ConfigError where it
    has no room."""
    gc.collect()
    device, config = bench.loaded.device, bench.order.config
    prompt = round(mean(load.tokens_in / load.requests for load in loads))
    budget = engine_limits(config, bench.spec, device.step_tokens).budget
    tell = lambda what: progress(f"alone: {what}", 0, 0)  # noqa: E731
    prompts = prefill(bench, prompt, max(1, min(budget // prompt, loads[0].requests)), _FLOOR_ROUNDS, tell)
    if all(load.tokens_out == load.requests for load in loads):
        return Allowed(None, prompts)
    context = round(mean(load.context for load in loads))
    steps = max(1, min(_FLOOR_STEPS, 2 * (context - 1), 2 * (bench.spec.max_positions - context - 1)))
    batch = max(1, round(mean(load.batch for load in loads)))
    return Allowed(decode(bench, batch, max(1, context - steps // 2), steps, _FLOOR_ROUNDS, tell), prompts)


def _drive(engine: Engine, load: Sequence[Shape], new: Sequence[int], asked: OfflineOrder) -> Load:
    engine.sink = sink = StepsKept()
    prompts = [shape.prompt for shape in load if isinstance(shape.prompt, tuple)]
    begun = time.perf_counter_ns()
    made = drive(engine, prompts, new, Sampling(temperature=0.0, stop_ids=asked.stop_ids))
    seconds = (time.perf_counter_ns() - begun) / 1e9
    sizes = [(len(prompt), len(one.token_ids)) for prompt, one in zip(prompts, made, strict=True)]
    decoded = sum(out - 1 for _, out in sizes)
    looked = sum((out - 1) * at + (out - 1) * out // 2 for at, out in sizes)
    giving = [min(record.rows, record.tokens) for record in sink.records if record.tokens]
    return Load(
        seconds=seconds,
        tokens_in=sum(at for at, _ in sizes),
        tokens_out=sum(out for _, out in sizes),
        requests=len(sizes),
        steps=len(sink.records),
        batch=mean(giving),
        context=looked / decoded if decoded else 0.0,
    )


def described(loads: Sequence[Load], floor: Allowed | None) -> list[str]:
    """Lines for a person."""
    rate = {name: median(load.rates[name] for load in loads) for name in loads[0].rates}
    last = loads[-1]
    lines = [
        f"{len(loads)} x {last.requests} requests, greedy; the last: {last.tokens_in} tokens in, {last.tokens_out} "
        f"out, {last.seconds:.2f} s, {last.steps} steps of {last.batch:.1f} rows at context {last.context:.0f} (means)",
        f"tokens/s: {rate['in_tokens_per_s']:.1f} in, {rate['out_tokens_per_s']:.1f} out, "
        f"{rate['total_tokens_per_s']:.1f} total{' (medians)' if len(loads) > 1 else ''}",
    ]
    if floor is not None:
        alone = (
            f"prompts of {floor.prompts.context} take {floor.prompts.step_ns / floor.prompts.tokens / 1e3:.1f} us/token"
        )
        if floor.step is not None:
            alone += f", a decode step of {floor.step.batch} {floor.step.step_ns / 1e6:.2f} ms"
        share = median(map(floor.share, loads))
        lines.append(f"{100 * share:.1f} % of what this engine's steps allow when timed alone ({alone})")
    return lines


def document(loads: Sequence[Load], floor: Allowed | None) -> tuple[dict[str, Any], dict[str, dict[str, list[float]]]]:
    """(results, samples) of a run file."""
    columns = {name: [load.rates[name] for load in loads] for name in loads[0].rates}
    results: dict[str, Any] = {"rounds": [asdict(load) | load.rates for load in loads]}
    if floor is not None:
        columns["share_of_steps"] = [floor.share(load) for load in loads]
        results["alone"] = {
            "decode": None if floor.step is None else asdict(floor.step),
            "prefill": asdict(floor.prompts),
        }
    return results, {"offline": columns}
