"""Work: the requests of a round, drawn from a seed, and how many of them a machine can be asked for. Runs nothing.

Requests come in blocks. Every block has the same prompt and output lengths, and in a block every first request and the
one behind it have the same lengths together as any other two: the longest prompt comes with the shortest, the most new
tokens with the fewest. So a slow rung that computes one pair and a fast one that computes all have the same mix, and a
rate says the same of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.core.errors import ConfigError

# Requests come this many times as fast as they are served one at a time: a queue stands nearly always, and yet not all
# are there at once, so that a window and joining later show.
ARRIVAL_SHARE = 1 / 16
# Where steps can be captured the highest rungs are so much faster (on an H100 52 times: 235 tokens/s one at a time,
# 12,155 at 8 rows in graphs; records/2026-11-26-laboratory-h100 and -steps-h100), that they would wait for requests.
CAPTURED_SHARE = 1 / 128

PAIR = 2
LEAST_REQUESTS = 16
"""Of a rung that batches: two full batches."""
MOST_BLOCKS = 24
_PROBED_SHARE = 0.15
"""Of the whole time, for the rung that computes everything again for every token."""
_ALONE_SHARE = 0.3
"""Of a round, for all rungs of one request at a time together."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """block: requests of a block, an even number. blocks: of a whole load. prompt, new: shortest and longest. shared:
    tokens that all prompts begin with that are longer than it."""

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
    Sizes(8, 2, (16, 256), 96, (16, 80)),
    Sizes(8, 2, (16, 256), 96, (8, 56)),
    Sizes(8, 2, (16, 192), 80, (8, 40)),
    Sizes(4, 4, (16, 128), 64, (8, 24)),
    Sizes(4, 4, (8, 96), 48, (4, 16)),
    Sizes(4, 4, (4, 40), 16, (2, 8)),
)


@dataclass(frozen=True, slots=True)
class Speed:
    """Of the naive engine, as a short probe found it: a token of one request with a cache, a position of a prompt."""

    decode_ns: float
    position_ns: float

    def pair_s(self, sizes: Sizes) -> float:
        """What two requests take that are computed again for every token, about."""
        again_ns = sizes.new_mean * (sizes.prompt_mean + sizes.new_mean / 2) * self.position_ns
        return PAIR * (again_ns + sizes.new_mean * self.decode_ns) / 1e9


def fitting(speed: Speed, positions: int, turns: int, box_s: float) -> Sizes:
    """The longest requests of which the slowest rung can serve two in every turn, or the shortest. positions: of the
    model. box_s: for everything. Raises ConfigError for a model that is too short even for those."""
    possible = [sizes for sizes in SIZES if sizes.longest <= positions]
    if not possible:
        raise ConfigError(
            f"the ladder's shortest load has sequences of {SIZES[-1].longest} tokens, and this model has {positions} "
            "positions; take a model (or a --max-model-len) with more"
        )
    timely = [sizes for sizes in possible if turns * speed.pair_s(sizes) <= _PROBED_SHARE * box_s]
    return timely[0] if timely else possible[-1]


def shares(alone_s: Mapping[str, float], batched_s: Mapping[str, float], block: int, round_s: float) -> dict[str, int]:
    """Requests of a round for every rung, by what one request takes it. A rung of one request at a time serves as many
    pairs as its own share of the round has room for, a block at most. All that batch serve the same, because how long a
    batch fills up and runs empty is a part of their rate, and as many as they have room for together."""
    found: dict[str, int] = {}
    for name, request_s in alone_s.items():
        room = _ALONE_SHARE * round_s / len(alone_s) / request_s
        found[name] = max(PAIR, min(block, int(room) // PAIR * PAIR))
    left_s = round_s - sum(found[name] * request_s for name, request_s in alone_s.items())
    blocks = int(left_s / (sum(batched_s.values()) * block)) if batched_s else 0
    many = block * max(-(-LEAST_REQUESTS // block), min(MOST_BLOCKS, blocks))
    return found | dict.fromkeys(batched_s, many)


@dataclass(frozen=True, slots=True)
class Request:
    """at_ns: when it comes, counted from the first."""

    prompt: tuple[int, ...]
    new: int
    at_ns: int


def draw(sizes: Sizes, vocab: int, gap_ns: int, seed: Sequence[int]) -> list[Request]:
    """The load of one round: gaps are exponential with a mean of gap_ns, the first request comes at once."""
    rng = np.random.default_rng(seed)
    last, half = sizes.block - 1, sizes.block // 2
    prompts, news = (np.linspace(*span, sizes.block).round().astype(int) for span in (sizes.prompt, sizes.new))
    matched = rng.permutation(half)
    partner = np.where(rng.integers(0, 2, half), matched, last - matched)
    stem = rng.integers(0, vocab, sizes.shared).tolist()
    made: list[Request] = []
    at_ns = 0.0
    for _ in range(sizes.blocks):
        for which in _in_pairs(rng, half, last):
            size = int(prompts[which])
            new = int(news[partner[which]] if which < half else news[last - partner[last - which]])
            own = rng.integers(0, vocab, size).tolist()
            prompt = stem + own[sizes.shared :] if size > sizes.shared else own
            made.append(Request(tuple(prompt), new, round(at_ns)))
            at_ns += rng.exponential(gap_ns)
    return made


def _in_pairs(rng: np.random.Generator, half: int, last: int) -> list[int]:
    """A block's requests: pairs of a short prompt and the long one that makes up for it, in any order."""
    order: list[int] = []
    for low in rng.permutation(half).tolist():
        order += rng.permutation([low, last - low]).tolist()
    return order
