"""Work: the requests of a round, drawn from a seed, and how many of them a machine can be asked for. Runs nothing.

Requests come in blocks. Every block has the same pairs of prompt and output lengths in an order of its own, so that a
slow rung that computes one block and a fast one that computes all have the same mix, and a rate says the same of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.core.errors import ConfigError

# Requests come this many times as fast as they are served one at a time: a queue stands nearly always, and yet not all
# are there at once, so that a window and joining later show.
ARRIVAL_SHARE = 1 / 16


@dataclass(frozen=True, slots=True)
class Sizes:
    """block: requests of a block. blocks: of a whole load. prompt, new: shortest and longest. shared: tokens that all
    prompts begin with that are longer than it."""

    block: int
    blocks: int
    prompt: tuple[int, int]
    shared: int
    new: tuple[int, int]

    @property
    def requests(self) -> int:
        return self.block * self.blocks

    @property
    def longest(self) -> int:
        return self.prompt[1] + self.new[1]

    @property
    def prompt_mean(self) -> int:
        return sum(self.prompt) // 2

    @property
    def new_mean(self) -> int:
        return sum(self.new) // 2

    @staticmethod
    def of(values: dict[str, Any]) -> Sizes:
        """As a run file has them."""
        prompt, new = tuple(values["prompt"]), tuple(values["new"])
        return Sizes(values["block"], values["blocks"], prompt, values["shared"], new)


# From the largest; the shared part is whole blocks of the KV cache.
SIZES = (
    Sizes(8, 12, (16, 256), 96, (16, 80)),
    Sizes(8, 6, (16, 256), 96, (8, 56)),
    Sizes(8, 4, (16, 192), 80, (8, 40)),
    Sizes(4, 6, (16, 128), 64, (8, 24)),
    Sizes(4, 4, (8, 96), 48, (4, 16)),
    Sizes(4, 3, (4, 40), 16, (2, 8)),
)


@dataclass(frozen=True, slots=True)
class Speed:
    """Of the naive engine, as a short probe found it: a token of one request with a cache, a position of a prompt."""

    decode_ns: float
    position_ns: float

    def round_s(self, sizes: Sizes, slow: int, fast: int) -> float:
        """What a round takes, about. slow, fast: rungs of one request at a time and of batches. That a batch of 8 makes
        three times the tokens is a guess; the sizes need no better one."""
        alone_ns = sizes.prompt_mean * self.position_ns + sizes.new_mean * self.decode_ns
        again_ns = sizes.new_mean * (sizes.prompt_mean + sizes.new_mean / 2) * self.position_ns
        batched_ns = fast * sizes.requests * alone_ns / 3
        return (sizes.block * (slow * alone_ns + again_ns) + batched_ns) / 1e9


def fitting(speed: Speed, positions: int, rounds: int, slow: int, fast: int, target_s: float) -> Sizes:
    """The largest load whose rounds end in about that time, or the smallest. positions: of the model. Raises
    ConfigError for a model that is too short even for that."""
    possible = [sizes for sizes in SIZES if sizes.longest <= positions]
    if not possible:
        raise ConfigError(
            f"the ladder's shortest load has sequences of {SIZES[-1].longest} tokens, and this model has {positions} "
            "positions; take a model (or a --max-model-len) with more"
        )
    timely = [sizes for sizes in possible if rounds * speed.round_s(sizes, slow, fast) <= target_s]
    return timely[0] if timely else possible[-1]


@dataclass(frozen=True, slots=True)
class Request:
    """at_ns: when it comes, counted from the first."""

    prompt: tuple[int, ...]
    new: int
    at_ns: int


def draw(sizes: Sizes, vocab: int, gap_ns: int, seed: Sequence[int]) -> list[Request]:
    """The load of one round: gaps are exponential with a mean of gap_ns, the first request comes at once."""
    rng = np.random.default_rng(seed)
    prompts = np.linspace(*sizes.prompt, sizes.block).round().astype(int)
    news = rng.permutation(np.linspace(*sizes.new, sizes.block).round().astype(int))
    stem = rng.integers(0, vocab, sizes.shared).tolist()
    made: list[Request] = []
    at_ns = 0.0
    for _ in range(sizes.blocks):
        for which in rng.permutation(sizes.block):
            size = int(prompts[which])
            own = rng.integers(0, vocab, size).tolist()
            prompt = stem + own[sizes.shared :] if size > sizes.shared else own
            made.append(Request(tuple(prompt), int(news[which]), round(at_ns)))
            at_ns += rng.exponential(gap_ns)
    return made
