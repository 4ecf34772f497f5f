"""The benchmark's arithmetic on numbers made by hand."""

from __future__ import annotations

import pytest

from ridgeline.bench.levels import batch_sizes, level_of, one_at_a_time, print_levels, speed_up
from ridgeline.bench.measures import percentile
from ridgeline.bench.records import Outcome
from tests.bench.hand import Screen, batch, outcome, timings


def run_of_two_levels() -> list[Outcome]:
    """1 in flight: 2 requests of 10 tokens, 500 ms each, of which 100 are the window: 20 tokens/s, 25 without it.
    2 in flight: 4 requests of 10 tokens in two batches of 500 ms: 40 tokens/s."""
    alone = [
        outcome(i, timings(window_ms=100, decode_ms=300, of=batch(i, size=1)), in_flight=1, sent_s=(i - 1) / 2)
        for i in (1, 2)
    ]
    pairs = [
        outcome(i, timings(decode_ms=400, of=batch(10 + i // 2, size=2)), in_flight=2, sent_s=2 + (i // 2 - 2) / 2)
        for i in (4, 5, 6, 7)
    ]
    warm_up = outcome(3, timings(of=batch(3)), in_flight=2, purpose="warm-up", sent_s=1.0, latency_ms=9000)
    failed = outcome(8, in_flight=2, sent_s=2.0, latency_ms=60_000, error="no answer")
    return [*alone, warm_up, *pairs, failed]


def test_a_level_counts_answered_measured_requests_only() -> None:
    level = level_of(2, run_of_two_levels())
    assert level is not None
    assert (level.requests, level.tokens) == (4, 40)
    assert level.wall_s == pytest.approx(1.0)
    assert level.tokens_per_s == pytest.approx(40)
    assert level.requests_per_s == pytest.approx(4)
    assert (level.latency_ms, level.p50_ms, level.p95_ms) == (500, 500, 500)
    assert (level.window_ms, level.queued_ms, level.compute_ms) == (0, 0, 500)
    assert level.batches == "2x2"
    assert level_of(4, run_of_two_levels()) is None


def test_the_speed_up_over_one_at_a_time_leaves_the_window_out() -> None:
    outcomes = run_of_two_levels()
    first, second = level_of(1, outcomes), level_of(2, outcomes)
    assert first is not None
    assert second is not None
    alone = one_at_a_time(outcomes)
    assert alone == pytest.approx(20 / 0.8)  # tokens / sum of (500 - 100) ms
    assert speed_up(second, first.tokens_per_s) == pytest.approx(2.0)
    assert speed_up(second, alone) == pytest.approx(1.6)
    assert speed_up(first, alone) == pytest.approx(0.8)


def test_the_table_shows_both_speed_ups_and_says_what_the_second_means() -> None:
    outcomes = run_of_two_levels()
    levels = [level for level in (level_of(1, outcomes), level_of(2, outcomes)) if level]
    screen = Screen(width=80)
    print_levels(screen.console, levels, one_at_a_time(outcomes))
    rows = [line.split() for line in screen.lines]
    assert ["1", "2.00", "20.0", "500", "500", "500", "100", "0", "400", "1x2", "1.00", "0.80"] in rows
    assert ["2", "4.00", "40.0", "500", "500", "500", "0", "0", "500", "2x2", "2.00", "1.60"] in rows
    flat = " ".join(screen.text.split())
    assert "* tokens/s against the 25.0 tokens/s that --batching one would reach here without any window" in flat
    assert "Best: 2 in flight, 1.60 times one at a time" in flat
    assert max(map(len, screen.lines)) <= 80


def test_without_timings_the_server_columns_are_dashes() -> None:
    level = level_of(1, [outcome(1, in_flight=1)])
    assert level is not None
    assert one_at_a_time([outcome(1, in_flight=1)]) is None
    screen = Screen()
    print_levels(screen.console, [level], None)
    assert ["1", "2.00", "20.0", "500", "500", "500", "-", "-", "-", "-", "1.00", "-"] in [
        line.split() for line in screen.lines
    ]


def test_batch_sizes_are_counted_largest_first() -> None:
    told = [timings(of=batch(serial, size)) for serial, size in ((1, 4), (2, 8), (2, 8), (3, 8), (4, 8))]
    assert batch_sizes(told) == "8x3 4x1"
    assert batch_sizes([timings(mean_rows=7.75)]) == "~7.8 rows"
    assert batch_sizes([]) == "-"


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(v) for v in range(1, 21)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile(values, 1.0)) == (10, 19, 20)
    assert percentile([7.0], 0.5) == 7.0
