"""Two servers in turn: what may be said of their difference."""

from __future__ import annotations

import random

import pytest

from ridgeline.bench.duel import compare, coverage, ratios, sign_cut, trend
from ridgeline.bench.measures import measure
from ridgeline.bench.order import Order
from ridgeline.bench.tables import reading
from ridgeline.core.errors import ConfigError
from tests.bench.test_measures import streamed


def test_fewer_than_five_rounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="too few"):
        compare([1.0] * 4, [1.0] * 4)
    with pytest.raises(ConfigError, match="--rounds: 4 is too few"):
        Order(against="http://b", rounds=4, concurrency=1, num_requests=1)


def test_the_estimate_is_the_median_ratio_and_lies_in_its_interval() -> None:
    r = compare([2.0, 4.0, 6.0, 9.0, 10.0], [1.0, 2.0, 3.0, 3.0, 20.0])
    assert (r.low, r.ratio, r.high) == (0.5, 2.0, 3.0)
    assert r.coverage == pytest.approx(0.9375)


def test_the_interval_has_the_coverage_it_says() -> None:
    # Of the sign test, from tables: n = 10 leaves out one at each end, n = 20 five.
    assert [sign_cut(n) for n in (5, 6, 10, 20)] == [0, 0, 1, 5]
    assert coverage(10, 1) == pytest.approx(0.9785, abs=1e-4)
    rng = random.Random(11)
    hits = 0
    for _ in range(400):
        baseline = [rng.uniform(90, 110) for _ in range(10)]
        r = compare([value * 1.2 * rng.lognormvariate(0, 0.1) for value in baseline], baseline)
        hits += r.low <= 1.2 <= r.high
    assert hits / 400 > 0.95, "seed 11"


def test_a_baseline_that_moves_more_than_they_differ_is_told() -> None:
    steady, sinking = [10.0, 10.1, 9.9, 10.0, 10.0], [10.0, 9.0, 8.0, 7.0, 6.0]
    assert trend(sinking) == pytest.approx(-0.5)
    assert compare([v * 1.3 for v in sinking], sinking).drifts
    assert "drifts" in reading(compare([v * 1.3 for v in sinking], sinking))
    assert not compare([v * 1.3 for v in steady], steady).drifts
    assert reading(compare([v * 1.3 for v in steady], steady)) == "differs"
    noisy = compare([10.2, 9.7, 10.4, 9.6, 10.5], steady)
    assert "drifts" in reading(noisy) or reading(noisy) == "cannot be told from 1"


def test_only_quantities_of_every_round_are_compared() -> None:
    with_events = [measure([streamed(1, (10.0, 20.0), 2, 30.0)]) for _ in range(5)]
    without = [measure([streamed(1, (), 2, 15.0)]) for _ in range(5)]
    found = ratios([m for m in with_events if m], [m for m in without if m])
    assert found["E2E p50"].ratio == pytest.approx(2.0)
    assert "TTFT p50" not in found
