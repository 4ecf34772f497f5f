"""Duel: two servers measured in turn, and what can be said about their difference. Pure arithmetic; knows no server.

In each round both get the same requests, one after the other. A round gives one ratio of a quantity (in a round already
a median or a rate). The estimate is the median of these ratios; the interval is the sign test's, turned round: between
the k-th smallest and the k-th largest ratio, with the largest k that keeps 95 % (Thompson 1936; Conover, Practical
Nonparametric Statistics, 3.2). It assumes nothing about the ratios but that the rounds are independent, and its
coverage is exact: with five rounds even the smallest and the largest ratio only reach 93.75 %, which is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

from ridgeline.bench.measures import Measures
from ridgeline.bench.order import LEAST_ROUNDS
from ridgeline.core.errors import ConfigError

WANTED = 0.95

QUANTITIES: dict[str, Callable[[Measures], float | None]] = {
    "TTFT p50": lambda m: m.ttft_ms.p50 if m.ttft_ms else None,
    "TPOT p50": lambda m: m.tpot_ms.p50 if m.tpot_ms else None,
    "ITL p50": lambda m: m.itl_ms.p50 if m.itl_ms else None,
    "E2E p50": lambda m: m.e2e_ms.p50 if m.e2e_ms else None,
    "tokens/s": lambda m: m.tokens_per_s,
    "requests/s": lambda m: m.requests_per_s,
    "goodput/s": lambda m: m.goodput_per_s,
}


@dataclass(frozen=True, slots=True)
class Ratio:
    """One quantity of a server over its baseline's. coverage: of [low, high]. drift: how far the baseline moved from
    its first round to its last, as a part of its median (Theil-Sen's slope), with its sign."""

    ratio: float
    low: float
    high: float
    coverage: float
    rounds: int
    drift: float

    @property
    def drifts(self) -> bool:
        """Whether the baseline moved by more than the two servers differ."""
        return abs(self.drift) > abs(self.ratio - 1)

    @property
    def tells(self) -> bool:
        """Whether the interval leaves 1 out."""
        return not self.low <= 1 <= self.high


def compare(values: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """values[i] and baseline[i] are of one round; all above 0. Raises ConfigError for fewer than LEAST_ROUNDS."""
    rounds = len(baseline)
    if rounds < LEAST_ROUNDS or len(values) != rounds:
        raise ConfigError(f"{rounds} rounds are too few to tell a difference from chance; at least {LEAST_ROUNDS}")
    ratios = sorted(a / b for a, b in zip(values, baseline, strict=True))
    cut = sign_cut(rounds)
    return Ratio(
        ratio=median(ratios),
        low=ratios[cut],
        high=ratios[-1 - cut],
        coverage=coverage(rounds, cut),
        rounds=rounds,
        drift=trend(baseline),
    )


def coverage(rounds: int, cut: int) -> float:
    """The chance that the median lies between the (cut + 1)-th smallest and the (cut + 1)-th largest of `rounds`."""
    outside = 2 * sum(comb(rounds, i) for i in range(cut + 1))
    return 1.0 - outside / float(2**rounds)


def sign_cut(rounds: int) -> int:
    """How many ratios an interval may leave out at each end and still keep WANTED; 0 where none may."""
    cut = 0
    while coverage(rounds, cut + 1) >= WANTED:
        cut += 1
    return cut


def trend(values: Sequence[float]) -> float:
    """First to last along the median of all slopes between two values (Theil 1950, Sen 1968), over their median."""
    slopes = [(b - a) / (j - i) for i, a in enumerate(values) for j, b in enumerate(values) if i < j]
    return median(slopes) * (len(values) - 1) / median(values)


def left_out(ours: Sequence[Measures], baseline: Sequence[Measures]) -> list[str]:
    """Quantities that some round had and that cannot be compared all the same: a round had none of it, or 0."""
    found = []
    for name, of in QUANTITIES.items():
        values = [of(m) for m in (*ours, *baseline)]
        if any(v is not None for v in values) and not all(values):
            found.append(name)
    return found


def ratios(ours: Sequence[Measures], baseline: Sequence[Measures]) -> dict[str, Ratio]:
    """Every quantity that both servers had in every round."""
    found = {}
    for name, of in QUANTITIES.items():
        a, b = [of(m) for m in ours], [of(m) for m in baseline]
        ready_a, ready_b = [v for v in a if v], [v for v in b if v]
        if len(ready_a) == len(a) and len(ready_b) == len(b):
            found[name] = compare(ready_a, ready_b)
    return found
