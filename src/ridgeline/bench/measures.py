"""Measures: what a load's outcomes amount to. Pure arithmetic; knows no server and no screen.

The terms, for one streamed request, with times from its sending (for a planned send see `lateness_ms`):

    TTFT   time to first token: the first event with text
    TPOT   time per output token: (last event - first event) / (tokens - 1)
    ITL    inter-token latency: each gap between two events; an event may carry several tokens
    E2E    from the sending to the end of the answer

Goodput is the requests a second that kept every limit (DistServe, Zhong et al. 2024, arXiv 2401.09670).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from ridgeline.bench.records import Outcome
from ridgeline.bench.remote import REFUSED

LIMITS = ("ttft", "tpot", "e2e")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the values, which are in rising order, that at least `share` of them do not exceed."""
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]


@dataclass(frozen=True, slots=True)
class Spread:
    """A quantity over requests or events; percentiles by nearest rank, so each is a value that occurred."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread | None:
        if not values:
            return None
        ordered = sorted(values)
        ranks = {name: percentile(ordered, share) for name, share in QUANTILES.items()}
        return Spread(count=len(ordered), mean=fmean(ordered), max=ordered[-1], **ranks)


@dataclass(frozen=True, slots=True)
class Measures:
    """One load. wall_s: from the first sending to the last end, so it includes the time in which the last ones end.

    refused: answered 429. errors: the other failures by kind. counted: every token count is the server's own; if not,
    events stand for tokens. events: with text. lateness_ms: sending after the planned time, None for a closed loop.
    good: requests that kept every limit, None without limits.
    """

    requests: int
    answered: int
    refused: int
    errors: dict[str, int]
    wall_s: float
    prompt_tokens: int
    tokens: int
    events: int
    counted: bool
    ttft_ms: Spread | None
    tpot_ms: Spread | None
    itl_ms: Spread | None
    e2e_ms: Spread | None
    lateness_ms: Spread | None
    retry_after_s: Spread | None
    good: int | None

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def tokens_per_s(self) -> float | None:
        return self._rate(self.tokens)

    @property
    def requests_per_s(self) -> float | None:
        return self._rate(self.answered)

    @property
    def goodput_per_s(self) -> float | None:
        return None if self.good is None else self._rate(self.good)

    def _rate(self, count: int) -> float | None:
        return count / self.wall_s if self.wall_s > 0 else None


def ttft_ms(outcome: Outcome) -> float | None:
    return outcome.reply.event_ms[0] if outcome.reply and outcome.reply.event_ms else None


def tpot_ms(outcome: Outcome) -> float | None:
    """None where there is no second token, or all tokens came in one event and nobody can tell."""
    reply = outcome.reply
    if reply is None or reply.tokens < 2 or len(reply.event_ms) < 2:
        return None
    return (reply.event_ms[-1] - reply.event_ms[0]) / (reply.tokens - 1)


def is_good(outcome: Outcome, limits_ms: Mapping[str, float]) -> bool:
    """Whether it was answered within every limit. A pace that the request does not have breaks no limit; an answer in
    one piece has its first token when it ends."""
    if outcome.reply is None:
        return False
    first_ms = ttft_ms(outcome)
    has = {
        "ttft": outcome.latency_ms if first_ms is None else first_ms,
        "tpot": tpot_ms(outcome),
        "e2e": outcome.latency_ms,
    }
    return all((value := has[name]) is None or value <= limit for name, limit in limits_ms.items())


def measure(outcomes: Sequence[Outcome], limits_ms: Mapping[str, float] | None = None) -> Measures | None:
    """Warm-up is left out; None where nothing is left. limits_ms: some of LIMITS."""
    counted = [o for o in outcomes if o.purpose == "measured"]
    if not counted:
        return None
    replies = [o.reply for o in counted if o.reply]
    kinds = Counter(o.kind for o in counted if o.kind and o.kind != REFUSED)
    return Measures(
        requests=len(counted),
        answered=len(replies),
        refused=sum(o.kind == REFUSED for o in counted),
        errors=dict(kinds.most_common()),
        wall_s=max(o.ended_s for o in counted) - min(o.sent_s for o in counted),
        prompt_tokens=sum(r.prompt_tokens for r in replies),
        tokens=sum(r.tokens for r in replies),
        events=sum(len(r.event_ms) for r in replies),
        counted=all(r.counted for r in replies),
        ttft_ms=Spread.of([ms for o in counted if (ms := ttft_ms(o)) is not None]),
        tpot_ms=Spread.of([ms for o in counted if (ms := tpot_ms(o)) is not None]),
        itl_ms=Spread.of([b - a for r in replies for a, b in pairwise(r.event_ms)]),
        e2e_ms=Spread.of([o.latency_ms for o in counted if o.reply]),
        lateness_ms=Spread.of([(o.sent_s - o.planned_s) * 1e3 for o in counted if o.planned_s is not None]),
        retry_after_s=Spread.of([o.retry_after_s for o in counted if o.retry_after_s is not None]),
        good=None if not limits_ms else sum(is_good(o, limits_ms) for o in counted),
    )
