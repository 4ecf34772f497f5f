"""Contest: two configurations in turn, in this process, on the same requests. Knows engines; knows no argv.

A round is one load of requests that arrive together, through A and through B; who is first changes from round to round.
A round before those that count warms both up. Latencies are from the arrival, so they have the waiting in them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING

from ridgeline.bench.duel import Ratio, compare
from ridgeline.bench.lengths import Lengths
from ridgeline.bench.measures import percentile
from ridgeline.bench.order import LEAST_ROUNDS
from ridgeline.build import EngineOrder, load, make_engine
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.types import Sampling
from ridgeline.lab.driving import Generated, drive
from ridgeline.lab.ladder.quality import gap

if TYPE_CHECKING:
    from ridgeline.engine.engine import Engine

Progress = Callable[[str, int, int], None]
"""Called with (what goes on, loads done, all of them)."""

USUAL = Lengths(16, 64)
MOST_JUDGED = 16
SIDES = ("A", "B")


@dataclass(frozen=True, slots=True)
class Work:
    """The requests of a round. prompt, new: tokens, drawn from the seed and the round. shared: tokens that all prompts
    of all rounds begin with, before those."""

    requests: int = 16
    prompt: Lengths = USUAL
    new: Lengths = USUAL
    shared: int = 0
    seed: int = 0

    @property
    def longest(self) -> int:
        return self.shared + self.prompt.high + self.new.high

    def draw(self, turn: int, vocab: int) -> tuple[list[list[int]], list[int]]:
        """(prompts, new tokens of each). Random ids below vocab."""
        head, rng = random.Random(self.seed), random.Random(f"{self.seed} {turn}")
        shared = [head.randrange(vocab) for _ in range(self.shared)]
        prompts = [shared + [rng.randrange(vocab) for _ in range(self.prompt.draw(rng))] for _ in range(self.requests)]
        return prompts, [self.new.draw(rng) for _ in prompts]


@dataclass(frozen=True, slots=True)
class Parted:
    """A request whose answers differ: up to there they agree. gap: between the two tokens, in nats, as A holds them;
    None where nobody looked."""

    at: int
    a: int
    b: int
    gap: float | None


@dataclass(slots=True)
class Result:
    """samples: {"A" or "B": {quantity: a value for each whole round}}. parted: requests of all rounds whose tokens
    differ."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=lambda: {side: {} for side in SIDES})
    requests: int = 0
    parted: list[Parted] = field(default_factory=list)
    interrupted: bool = False

    @property
    def rounds(self) -> int:
        return len(next(iter(self.samples["A"].values()), []))

    def ratios(self) -> dict[str, Ratio]:
        """B over A; none after too few rounds."""
        if self.rounds < LEAST_ROUNDS:
            return {}
        return {name: compare(self.samples["B"][name], values) for name, values in self.samples["A"].items()}


def fitted(config: Config, work: Work) -> Config:
    """The configuration with room for this work and no more, where it leaves that open: two engines share a memory."""
    model, limits, defaults = config.model, config.limits, Config().limits
    if model.max_model_len is None:
        model = replace(model, max_model_len=max(2, work.longest))
    if limits.max_num_seqs == defaults.max_num_seqs:
        limits = replace(limits, max_num_seqs=max(work.requests, config.batching.max_batch_size))
    return replace(config, model=model, limits=limits)


def shares_weights(a: EngineOrder, b: EngineOrder) -> bool:
    """Whether both ask for the same weights in the same format on the same device."""
    return a.weights == b.weights and all_but_length(a.config) == all_but_length(b.config)


def all_but_length(config: Config) -> object:
    """What weights depend on."""
    return replace(config.model, max_model_len=None, served_model_name=None)


def run(a: EngineOrder, b: EngineOrder, work: Work, rounds: int, progress: Progress) -> Result:
    """Measure. After Ctrl-C the whole rounds until then. Raises ConfigError for what cannot be built or held."""
    if rounds < LEAST_ROUNDS:
        raise ConfigError(f"--rounds: {rounds} is too few to tell a difference from chance; at least {LEAST_ROUNDS}")
    result = Result()
    try:
        _run(a, b, work, rounds, progress, result)
    except KeyboardInterrupt:
        result.interrupted = True
    return result


def _run(a: EngineOrder, b: EngineOrder, work: Work, rounds: int, progress: Progress, result: Result) -> None:
    engines, vocab = _engines(a, b, work, progress)
    total = 2 * (rounds + 1)
    for turn in range(rounds + 1):
        prompts, new = work.draw(turn, vocab)
        made: dict[str, list[Generated]] = {}
        taken: dict[str, dict[str, float]] = {}
        for place, side in enumerate(SIDES if turn % 2 == 0 else reversed(SIDES)):
            what = f"{side}, round {turn} of {rounds}" if turn else f"{side}, warming up"
            progress(what, 2 * turn + place, total)
            made[side], taken[side] = _load(engines[side], prompts, new)
        if turn:
            for side in SIDES:
                for name, value in taken[side].items():
                    result.samples[side].setdefault(name, []).append(value)
            result.requests += work.requests
            result.parted += _parted(engines["A"], prompts, made, MOST_JUDGED - len(result.parted))


def _engines(a: EngineOrder, b: EngineOrder, work: Work, progress: Progress) -> tuple[dict[str, Engine], int]:
    engines, vocab, loaded = {}, [], None
    for side, given in zip(SIDES, (a, b), strict=True):
        progress(f"{side}, loading", 0, 0)
        _check_room(side, given, work)
        order = replace(given, config=fitted(given.config, work))
        if loaded is None or not shares_weights(a, b):
            loaded = load(order, lambda *_: None)
        engines[side], info = make_engine(order, lambda *_: None, loaded)
        vocab.append(info.vocab)
    return engines, min(vocab)


def _check_room(side: str, order: EngineOrder, work: Work) -> None:
    positions, given = order.spec().max_positions, order.config.model.max_model_len
    if work.longest > min(positions, given or positions):
        raise ConfigError(
            f"{side}: the longest request has {work.longest} tokens, and this configuration takes "
            f"{min(positions, given or positions)}; shorten --input-len, --output-len or --shared-prefix"
        )


def _load(engine: Engine, prompts: Sequence[list[int]], new: Sequence[int]) -> tuple[list[Generated], dict[str, float]]:
    start = time.perf_counter()
    made = drive(engine, prompts, new, Sampling())
    wall_s = time.perf_counter() - start
    timings = [one.timings for one in made if one.timings is not None]
    latency = sorted((t.finished_ns - t.arrival_ns) / 1e6 for t in timings)
    return made, {
        "tokens/s": sum(new) / wall_s,
        "TTFT p50 ms": median((t.first_token_ns - t.arrival_ns) / 1e6 for t in timings),
        "latency p50 ms": median(latency),
        "latency p95 ms": percentile(latency, 0.95),
    }


def _parted(
    engine: Engine, prompts: Sequence[list[int]], made: dict[str, list[Generated]], judged: int
) -> list[Parted]:
    """judged: for so many the gap is asked for, which takes two passes over the prompt."""
    found: list[Parted] = []
    for prompt, one, other in zip(prompts, made["A"], made["B"], strict=True):
        for at, (a, b) in enumerate(zip(one.token_ids, other.token_ids, strict=True)):
            if a != b:
                apart = gap(engine, prompt + one.token_ids[:at], a, b) if len(found) < judged else None
                found.append(Parted(at, a, b, apart))
                break
    return found
