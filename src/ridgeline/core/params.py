"""SamplingParams: what a client may ask of a generation, checked. Knows no model and no HTTP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.core.errors import BadRequest
from ridgeline.core.types import Sampling

MAX_SEED = 2**64 - 1
MAX_STOPS = 16
MAX_TOP_K = 2**31 - 1


def derive_seed(base: int, index: int) -> int:
    """The seed of the index-th request that brings none: splitmix64 (Steele, Lea, Flood 2014) of both."""
    z = (base + (index + 1) * 0x9E3779B97F4A7C15) & MAX_SEED
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MAX_SEED
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MAX_SEED
    return z ^ (z >> 31)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to generate. Raises BadRequest, naming the parameter, for a value that makes no sense.

    max_tokens: new tokens at most. min_tokens: no end before that many. temperature: 0 is greedy. top_k: choose among
    the k likeliest, 0 is off. top_p: choose among the likeliest that together have this probability, 1 is off. seed:
    same seed, same tokens, whatever else the server does; None takes a fresh one. stop: strings that end the text and
    are not part of it. ignore_eos: go on past the model's own end.
    """

    max_tokens: int = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        # One string is what many people write; taken as a sequence it would stop at each of its letters.
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        for name, low in (("max_tokens", 1), ("min_tokens", 0), ("top_k", 0)):
            value = getattr(self, name)
            if value < low:
                raise BadRequest(f"{name}: {value} is too small; it must be at least {low}", param=name)
        if self.top_k > MAX_TOP_K:
            raise BadRequest(f"top_k: {self.top_k} is too large; it must be at most {MAX_TOP_K}", param="top_k")
        if self.min_tokens > self.max_tokens:
            raise BadRequest(f"min_tokens: {self.min_tokens} exceeds max_tokens {self.max_tokens}", param="min_tokens")
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 2):
            raise BadRequest(f"temperature: {self.temperature} is not between 0 and 2", param="temperature")
        if not 0 < self.top_p <= 1:
            raise BadRequest(f"top_p: {self.top_p} is not above 0 and at most 1", param="top_p")
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise BadRequest(f"seed: {self.seed} is not between 0 and {MAX_SEED}", param="seed")
        if len(self.stop) > MAX_STOPS or any(not s for s in self.stop):
            raise BadRequest(f"stop: at most {MAX_STOPS} strings, none of them empty", param="stop")

    @staticmethod
    def from_generation_config(values: Mapping[str, Any]) -> SamplingParams:
        """The defaults that a model's generation_config.json asks for: max_new_tokens, and temperature, top_k and top_p
        where it samples."""
        names = ("temperature", "top_k", "top_p") if values.get("do_sample", False) else ()
        known = {name: values[name] for name in names if values.get(name) is not None}
        return SamplingParams(max_tokens=values.get("max_new_tokens") or 16, **known)

    def for_device(self, seed: int, eos_ids: tuple[int, ...]) -> Sampling:
        """The part that the device needs. seed: used if the params bring none."""
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_tokens=self.min_tokens,
            seed=seed if self.seed is None else self.seed,
            stop_ids=() if self.ignore_eos else eos_ids,
        )
