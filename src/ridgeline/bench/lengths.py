"""Lengths: how many tokens, drawn from a range. Knows no prompt."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from typing import Literal

from ridgeline.core.errors import ConfigError

LONGEST = 10_000_000
# The range of a lognormal is where 95 of 100 draws fall; the others are clipped to its ends.
SIGMAS = 2.0

Law = Literal["uniform", "lognormal"]


@dataclass(frozen=True, slots=True)
class Lengths:
    """From low to high, both included."""

    low: int
    high: int

    @staticmethod
    def parse(flag: str, text: str) -> Lengths:
        """`128` or `32:512`. Raises ConfigError that names the flag."""
        match = re.fullmatch(r"(\d{1,8})(?::(\d{1,8}))?", text.strip())
        if match is None:
            raise ConfigError(f"{flag}: {text!r} is not a length; write for example 128 or 32:512")
        low, high = int(match[1]), int(match[2] or match[1])
        if not 1 <= low <= high <= LONGEST:
            raise ConfigError(f"{flag}: {text!r} must rise from at least 1 to at most {LONGEST}")
        return Lengths(low, high)

    @property
    def is_range(self) -> bool:
        return self.low != self.high

    def draw(self, rng: random.Random, law: Law = "uniform") -> int:
        """lognormal: the median is the geometric middle of the range, so short ones are common and long ones rare."""
        if law == "uniform" or not self.is_range:
            return rng.randint(self.low, self.high)
        middle = (math.log(self.low) + math.log(self.high)) / 2
        sigma = (math.log(self.high) - math.log(self.low)) / 2 / SIGMAS
        return min(self.high, max(self.low, round(rng.lognormvariate(middle, sigma))))
