"""Arrivals: the planned seconds at which an open loop sends. Knows no request and no clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator


def poisson(rate: float, rng: random.Random) -> Iterator[float]:
    """Independent users: exponential gaps with a mean of 1 / rate."""
    at = 0.0
    while True:
        at += rng.expovariate(rate)
        yield at


def constant(rate: float, _rng: random.Random) -> Iterator[float]:
    """A metronome, from second 0."""
    i = 0
    while True:
        yield i / rate
        i += 1


def burst(rate: float, _rng: random.Random) -> Iterator[float]:
    """What a second brings, all at once at its beginning; below one a second, a request every 1 / rate seconds."""
    size = max(1, round(rate))
    i = 0
    while True:
        yield i // size * size / rate
        i += 1


ARRIVALS: dict[str, Callable[[float, random.Random], Iterator[float]]] = {
    "poisson": poisson,
    "constant": constant,
    "burst": burst,
}
