"""TTFT, TPOT, ITL and goodput on outcomes made by hand."""

from __future__ import annotations

import pytest

from ridgeline.bench.measures import Spread, is_good, measure, tpot_ms, ttft_ms
from ridgeline.bench.records import Outcome, Reply, Shape
from ridgeline.bench.remote import REFUSED, TIMEOUT


def streamed(number: int, event_ms: tuple[float, ...], tokens: int, latency_ms: float, sent_s: float = 0.0) -> Outcome:
    reply = Reply(prompt_tokens=10, tokens=tokens, timings=None, event_ms=event_ms)
    return Outcome(number, 1, "measured", Shape("a", tokens), sent_s, latency_ms, reply, planned_s=sent_s - 0.002)


def failed(number: int, kind: str, retry_after_s: float | None = None) -> Outcome:
    return Outcome(number, 1, "measured", Shape("a", 1), 0.0, 1.0, None, "text", kind, retry_after_s=retry_after_s)


def test_the_terms() -> None:
    # Four tokens in three events: the gaps are of events, the time a token is not.
    one = streamed(1, (100.0, 140.0, 160.0), tokens=4, latency_ms=170.0)
    assert ttft_ms(one) == 100.0
    assert tpot_ms(one) == pytest.approx(20.0)
    m = measure([one])
    assert m is not None
    assert m.itl_ms == Spread(count=2, mean=30.0, p50=20.0, p90=40.0, p95=40.0, p99=40.0, max=40.0)
    assert m.e2e_ms is not None
    assert m.e2e_ms.p50 == 170.0
    assert m.lateness_ms is not None
    assert m.lateness_ms.p50 == pytest.approx(2.0)


def test_one_token_has_no_time_between_tokens() -> None:
    assert tpot_ms(streamed(1, (5.0,), tokens=1, latency_ms=6.0)) is None
    assert tpot_ms(streamed(1, (5.0,), tokens=9, latency_ms=6.0)) is None, "all tokens came at once"


def test_percentiles_are_values_that_occurred() -> None:
    spread = Spread.of([float(v) for v in range(1, 101)])
    assert spread is not None
    assert (spread.p50, spread.p90, spread.p95, spread.p99, spread.max) == (50, 90, 95, 99, 100)
    assert Spread.of([]) is None


def test_rates_are_over_the_time_from_the_first_sending_to_the_last_end() -> None:
    m = measure(
        [
            streamed(1, (100.0, 200.0), tokens=2, latency_ms=500.0),
            streamed(2, (100.0, 300.0), tokens=6, latency_ms=1000.0, sent_s=1.0),
        ],
        {"ttft": 150.0, "tpot": 50.0},
    )
    assert m is not None
    assert m.wall_s == pytest.approx(2.0)
    assert m.tokens_per_s == pytest.approx(4.0)
    assert m.requests_per_s == pytest.approx(1.0)
    assert m.good == 1, "the first takes 100 ms a token"
    assert m.goodput_per_s == pytest.approx(0.5)


def test_refusals_are_no_errors_and_errors_have_kinds() -> None:
    m = measure([failed(1, REFUSED, 2.0), failed(2, REFUSED), failed(3, TIMEOUT), failed(4, TIMEOUT)], {"ttft": 1.0})
    assert m is not None
    assert (m.refused, m.errors, m.failed, m.answered, m.good) == (2, {TIMEOUT: 2}, 2, 0, 0)
    assert m.retry_after_s is not None
    assert m.retry_after_s.p50 == 2.0


def test_every_limit_has_to_be_kept() -> None:
    one = streamed(1, (100.0, 140.0), tokens=2, latency_ms=150.0)
    assert is_good(one, {"ttft": 100.0, "tpot": 40.0, "e2e": 150.0})
    for name, limit in (("ttft", 99.0), ("tpot", 39.0), ("e2e", 149.0)):
        assert not is_good(one, {"ttft": 100.0, "tpot": 40.0, "e2e": 150.0} | {name: limit})
    assert is_good(streamed(1, (5.0,), tokens=1, latency_ms=6.0), {"tpot": 1.0})


def test_an_answer_in_one_piece_has_its_first_token_when_it_ends() -> None:
    assert is_good(streamed(1, (), tokens=4, latency_ms=90.0), {"ttft": 100.0})
    assert not is_good(streamed(1, (), tokens=4, latency_ms=110.0), {"ttft": 100.0})


def test_warm_up_is_not_measured() -> None:
    warm = Outcome(1, 1, "warm-up", Shape("a", 1), 0.0, 1.0, Reply(1, 1, None))
    assert measure([warm]) is None
