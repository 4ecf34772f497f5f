"""Ranks: how much larger one handful of positive numbers is than another, with an interval. Knows no run and no unit.

For repeats that were not measured in pairs. The estimate is Hodges and Lehmann's on logarithms: the median of all
ratios of a value to a baseline's (Annals of Mathematical Statistics 34, 1963). The interval is the Mann-Whitney test's,
turned round: between the ratios that the test would just not reject, the k-th smallest and the k-th largest of them,
with the largest k that keeps 95 % (Hollander and Wolfe, Nonparametric Statistical Methods, 4.3). It assumes that the
two differ by a factor and that the repeats are independent, and nothing about their distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import NormalDist

import numpy as np

from ridgeline.bench.duel import WANTED, trend
from ridgeline.bench.order import LEAST_ROUNDS
from ridgeline.core.errors import ConfigError

# Up to here the test's distribution is counted, beyond it is normal to four digits.
_COUNTED = 50


@dataclass(frozen=True, slots=True)
class Factor:
    """Values over their baseline. coverage: of [low, high]. drift, baseline_drift: how far each moved from its first
    repeat to its last, as a part of its median, with its sign."""

    ratio: float
    low: float
    high: float
    coverage: float
    repeats: int
    baseline_repeats: int
    drift: float
    baseline_drift: float

    @property
    def tells(self) -> bool:
        """Whether the interval leaves 1 out."""
        return not self.low <= 1 <= self.high

    @property
    def drifts(self) -> bool:
        """Whether one of the two moved by more than they differ."""
        return max(abs(self.drift), abs(self.baseline_drift)) > abs(self.ratio - 1)


def factor(values: Sequence[float], baseline: Sequence[float]) -> Factor:
    """All above 0, each in the order of measuring. Raises ConfigError for fewer than LEAST_ROUNDS on a side."""
    m, n = len(values), len(baseline)
    if min(m, n) < LEAST_ROUNDS:
        raise ConfigError(f"{n} and {m} repeats are too few to tell a difference from chance; at least {LEAST_ROUNDS}")
    logs = np.sort(np.subtract.outer(np.log(values), np.log(baseline)), axis=None)  # [m * n]
    cut, coverage = left_out(m, n)
    return Factor(
        ratio=math.exp(np.median(logs)),
        low=math.exp(logs[cut]),
        high=math.exp(logs[-1 - cut]),
        coverage=coverage,
        repeats=m,
        baseline_repeats=n,
        drift=trend(values),
        baseline_drift=trend(baseline),
    )


def left_out(m: int, n: int) -> tuple[int, float]:
    """How many of the m * n ratios an interval may leave out at each end and still keep WANTED, and its coverage."""
    if max(m, n) > _COUNTED:
        deviation = math.sqrt(m * n * (m + n + 1) / 12)
        cut = max(0, math.floor(m * n / 2 + NormalDist().inv_cdf((1 - WANTED) / 2) * deviation - 0.5))
        return cut, 1 - 2 * NormalDist().cdf((cut + 0.5 - m * n / 2) / deviation)
    below = list(accumulate(counts(m, n)))  # arrangements whose statistic is at most u
    cut = max((u for u, count in enumerate(below) if 1 - 2 * count / below[-1] >= WANTED), default=0)
    return cut, 1 - 2 * below[cut] / below[-1]


def counts(m: int, n: int) -> list[int]:
    """Arrangements of m and n values by their Mann-Whitney statistic, 0 to m * n: the Gaussian binomial coefficient,
    a product of (1 - q^(n + i)) / (1 - q^i)."""
    found = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for u in range(m * n, n + i - 1, -1):
            found[u] -= found[u - n - i]
        for u in range(i, m * n + 1):
            found[u] += found[u - i]
    return found
