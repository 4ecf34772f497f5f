"""Repeats: how often and how long something is done to know its rate. Knows clocks and medians; knows no hardware."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ridgeline.core.ceilings import Rate


@dataclass(frozen=True, slots=True)
class Budget:
    """repeats: measurements behind a figure, at least five. repeat_ns: what one of them takes at least. memory_bytes:
    the most that a buffer may take. matrix_sizes: rows of the square matrices that are tried, smallest first."""

    repeats: int = 7
    repeat_ns: int = 40_000_000
    memory_bytes: int = 8 << 30
    matrix_sizes: tuple[int, ...] = (512, 1024, 2048)


Run = Callable[[int], int]
"""Does the work so many times and returns nanoseconds."""


def samples(run: Run, budget: Budget) -> list[float]:
    """Nanoseconds of the work done once, `repeats` times. What comes before the first is the warm-up, from which it is
    learned how often the work must be done to take `repeat_ns`."""
    times, took = 1, max(1, run(1))
    while took < budget.repeat_ns // 4:
        times = min(times * 8, max(times * 2, times * budget.repeat_ns // took))
        took = max(1, run(times))
    times = max(1, -(-times * budget.repeat_ns // took))
    return [max(1, run(times)) / times for _ in range(max(5, budget.repeats))]


def rate(amount: float, run: Run, budget: Budget) -> Rate:
    """A second, of work that is so much when done once."""
    return spread([amount / ns * 1e9 for ns in samples(run, budget)])


def spread(values: Sequence[float]) -> Rate:
    return Rate(statistics.median(values), min(values), max(values))
