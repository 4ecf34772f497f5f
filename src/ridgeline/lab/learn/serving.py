"""What policies and the KV cache are worth, counted in steps and positions, which are the same on every machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from ridgeline.build import make_engine
from ridgeline.core.types import Sampling
from ridgeline.lab.driving import StepsKept, drive
from ridgeline.lab.learn.chapter import Figures, Found, Place

SEATS, REQUESTS = 8, 24
PROMPT, SHORTEST, LONGEST = 16, 4, 64
CACHED_REQUESTS, CACHED_PROMPT, CACHED_NEW = 8, 32, 64
STRIP = 48
"""Steps that a strip of the diagram shows at most."""


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a load. rows, positions: of every step."""

    tokens: int
    seconds: float
    rows: tuple[int, ...]
    positions: int
    padding: int

    @property
    def steps(self) -> int:
        return len(self.rows)

    @property
    def per_step(self) -> float:
        return self.tokens / self.steps


def issued(place: Place) -> Found:
    """Tokens a step ("IPC") of the same unequal requests under batches that nobody joins and under continuous ones."""
    rng = np.random.default_rng(0)
    new = rng.integers(SHORTEST, LONGEST + 1, REQUESTS).tolist()
    policies: dict[str, dict[str, Any]] = {
        "one": {},
        "static": {"max_batch_size": SEATS},
        "continuous": {},
    }
    runs = {}
    for done, (name, options) in enumerate(policies.items()):
        place.progress(f"batching {name}", done, len(policies))
        runs[name] = run(place, {"batching": name, **options}, SEATS, [PROMPT] * REQUESTS, new)
    ratio = runs["static"].steps / runs["continuous"].steps
    rows = tuple(
        (name, f"{one.steps}", f"{one.per_step:.2f}", f"{one.tokens / one.seconds:,.0f}", strip(one.rows))
        for name, one in runs.items()
    )
    told = (
        f"Static batches of {SEATS} take {ratio:.2f} times the steps: a batch lasts as long as its longest member, and "
        "the seats of those who ended earlier stay empty.",
        f"The strip shows how many of the {SEATS} seats made a token in each step. A seat that makes none is a stall: "
        "a processor would call it an empty issue slot.",
    )
    return Found(
        ratio, Figures(("batching", "steps", "tokens a step", "tokens/s", "seats in use, step by step"), rows), told
    )


def cached(place: Place) -> Found:
    """Positions that are computed with a KV cache and without one."""
    prompts, new = [CACHED_PROMPT] * CACHED_REQUESTS, [CACHED_NEW] * CACHED_REQUESTS
    choices: dict[str, dict[str, Any]] = {
        "none": {"kv_cache": "none", "prefix_cache": None},
        "paged": {"kv_cache": "paged"},
    }
    runs = {}
    for done, (name, options) in enumerate(choices.items()):
        place.progress(f"KV cache {name}", done, len(choices))
        runs[name] = run(place, options, CACHED_REQUESTS, prompts, new)
    ratio = runs["none"].positions / runs["paged"].positions
    faster = runs["none"].seconds / runs["paged"].seconds
    rows = tuple(
        (name, f"{one.positions:,}", f"{one.seconds:.2f}", f"{one.tokens / one.seconds:,.0f}")
        for name, one in runs.items()
    )
    told = (
        f"Without a cache {ratio:.1f} times as many positions are computed, and the run takes {faster:.1f} times as "
        "long: positions that share a step also share its weights, so time grows slower than work.",
        "What the cache costs instead is memory: every position keeps its keys and values until its request ends.",
    )
    return Found(ratio, Figures(("KV cache", "positions", "seconds", "tokens/s"), rows), told)


def run(place: Place, batching: dict[str, Any], seats: int, prompts: Sequence[int], new: Sequence[int]) -> Run:
    """All requests at once, of random tokens, to their full lengths; before that a few tokens of each, unmeasured."""
    bench, rng = place.bench, np.random.default_rng(1)
    order, config = bench.order, bench.order.config
    config = dataclasses.replace(
        config,
        batching=dataclasses.replace(config.batching, **batching),
        limits=dataclasses.replace(config.limits, max_num_seqs=seats),
    )
    engine, info = make_engine(dataclasses.replace(order, config=config), lambda *_: None, bench.loaded)
    texts = [rng.integers(0, info.vocab, count).tolist() for count in prompts]
    drive(engine, texts, [2] * len(texts), Sampling())
    while engine.idle():
        pass
    engine.sink = sink = StepsKept()
    texts = [rng.integers(0, info.vocab, count).tolist() for count in prompts]
    made = drive(engine, texts, list(new), Sampling())
    records = sink.records
    seconds = (records[-1].collected_ns - records[0].launched_ns) / 1e9
    positions, padding = sum(r.positions for r in records), sum(r.padding for r in records)
    return Run(sum(len(one.token_ids) for one in made), seconds, tuple(r.tokens for r in records), positions, padding)


def strip(rows: Sequence[int], width: int = STRIP) -> str:
    """One digit a step, or for every so many steps where there are more than `width`."""
    stride = -(-len(rows) // width)
    return "".join(str(min(9, round(mean(rows[i : i + stride])))) for i in range(0, len(rows), stride))
