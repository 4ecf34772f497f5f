"""Random arrivals, aborts, preemptions, horizons, overlap and crashes: every stream equals naive decoding."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from tests.scheduler.cases import Case, cases
from tests.scheduler.traffic import Trial

COMMON = (
    "plans",
    "overlapped",
    "several iterations",
    "aborted",
    "stop",
    "length",
    "crashed",
    "hits",
    "dropped",
    "no cache",
)


@pytest.mark.parametrize(
    ("kind", "runs", "rare"),
    [
        ("continuous", 1300, (*COMMON, "preempted", "chunks")),
        ("prefill-first", 500, (*COMMON, "preempted", "chunks")),
        ("gathered", 500, (*COMMON, "preempted", "chunks")),
        ("dynamic", 400, (*COMMON, "preempted")),
        ("static", 300, (*COMMON, "preempted")),
        ("one", 200, COMMON),
    ],
)
def test_streams_equal_naive_decoding(kind: str, runs: int, rare: tuple[str, ...]) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=runs,
        deadline=None,
        derandomize=True,  # a failure prints the case; the same cases run everywhere
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(case=cases(kind))
    def run(case: Case) -> None:
        seen.update({what: 1 for what, times in Trial(case).run().items() if times})

    run()
    assert all(seen[what] >= runs // 100 for what in rare), f"the traffic lost its variety: {dict(seen)}"
