"""The batch table, the summary and the sentences, on numbers made by hand."""

from __future__ import annotations

from ridgeline.bench.batches import print_batches, seen, summary
from ridgeline.bench.records import whole_batches
from tests.bench.hand import Screen, batch, outcome, timings


def test_a_batch_is_told_once_by_its_most_complete_record() -> None:
    early = batch(5, steps=10, positions=400, padding=40)
    late = batch(5, steps=20, positions=1000, padding=310)
    before = batch(9, closed_s=99.0)
    told = whole_batches([timings(of=early), timings(of=late), timings(of=early), timings(of=before)])
    assert told == [before, late]


def test_the_table_says_size_reason_wait_padding_and_memory() -> None:
    screen = Screen()
    full = batch(2, size=8, closed_s=101.0, closed="full", wait_ms=12.34, padded_length=96, steps=31, padding=250)
    print_batches(screen.console, [timings(of=batch(1, size=6)), timings(of=full)])
    rows = [line.split() for line in screen.lines]
    assert ["1", "6", "window", "50.0", "ms", "40", "20", "31", "%", "1.5", "MiB"] in rows
    assert ["2", "8", "full", "12.3", "ms", "96", "31", "25", "%", "1.5", "MiB"] in rows
    assert "full: it had as many requests as a batch may have" in screen.text
    assert "ready:" not in screen.text


def test_a_server_without_batches_is_told_by_its_mean_rows() -> None:
    screen = Screen(width=200)
    # (10 steps x 2 rows + 30 steps x 6 rows) / 40 steps
    print_batches(screen.console, [timings(steps=10, mean_rows=2), timings(steps=30, mean_rows=6)])
    assert "requests join and leave at every step. A step held 5.0 rows on average" in screen.text


def test_sentences_carry_the_numbers_of_the_run() -> None:
    one, two = batch(1, size=2, padding=100), batch(2, size=1, closed_s=101.0, padding=520)
    told = seen([timings(decode_ms=400, of=one), timings(decode_ms=150, of=one), timings(101.0, of=two)])
    assert told[0] == "Batches of 2 and 1; 31 % of the computed positions were padding."
    assert told[1].startswith("1 of 3 requests ended before their batch did, on average 250 ms earlier")
    assert seen([timings(of=one)])[0].startswith("One batch of 2; 10 %")
    many = [timings(of=batch(i, size=1 + i % 4, closed_s=100.0 + i)) for i in range(12)]
    assert seen(many)[0].startswith("12 batches of 1 to 4;")
    assert seen([timings()]) == []


def test_the_summary_adds_up() -> None:
    told = summary(
        [
            outcome(1, timings(window_ms=50, decode_ms=350), sent_s=0.0, latency_ms=500, tokens=10),
            outcome(2, timings(window_ms=0, decode_ms=400), sent_s=1.0, latency_ms=1000, tokens=30),
            outcome(3, error="connection refused", sent_s=1.5, latency_ms=99_000),
        ]
    )
    assert told == (
        "2 requests and 40 tokens in 2.00 s; 20.0 tokens/s; mean latency 750 ms; 5 % of it waiting for the window"
    )
