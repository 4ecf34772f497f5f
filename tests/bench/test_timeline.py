"""The drawing: which phase stands in which column, with and without colours."""

from __future__ import annotations

import pytest

from ridgeline.bench.timeline import (
    DECODE,
    DONE,
    EMPTY,
    PREFILL,
    QUEUED,
    WINDOW,
    Segment,
    cells,
    draw,
    segments,
    tick_ms,
)
from tests.bench.hand import Screen, batch, outcome, timings


def test_a_first_request_waits_for_the_window_and_computes() -> None:
    first = batch(1, closed_s=100.05)
    life = segments(timings(100.0, window_ms=50, queued_ms=10, of=first), 100.0, None)
    told = [(s.phase, round(s.start_ms), round(s.end_ms)) for s in life]
    assert told == [(WINDOW, 0, 50), (QUEUED, 50, 60), (PREFILL, 60, 160), (DECODE, 160, 560)]


def test_the_window_of_a_request_that_found_the_device_busy_is_the_last_part_of_its_wait() -> None:
    second = batch(2, closed_s=100.33)
    life = segments(timings(100.0, window_ms=30, queued_ms=300, of=second), 100.0, 101.0)
    told = [(s.phase, round(s.start_ms), round(s.end_ms)) for s in life]
    assert told == [(QUEUED, 0, 300), (WINDOW, 300, 330), (PREFILL, 330, 430), (DECODE, 430, 830), (EMPTY, 830, 1000)]


def test_a_short_prefill_keeps_a_column_and_done_follows_decode() -> None:
    life = [Segment(QUEUED, 0, 30), Segment(PREFILL, 30, 31), Segment(DECODE, 31, 60)]
    assert cells(life, 10.0, 8) == [QUEUED, QUEUED, QUEUED, PREFILL, DECODE, DECODE, DONE, None]
    both_short = [Segment(QUEUED, 0, 30), Segment(PREFILL, 30, 31), Segment(DECODE, 31, 32)]
    assert cells(both_short, 10.0, 8) == [QUEUED, QUEUED, QUEUED, PREFILL, DECODE, DONE, None, None]


def test_rows_are_plain_characters_in_a_pipe() -> None:
    shared = batch(7, closed_s=100.1)
    screen = Screen(width=60)
    outcomes = [
        outcome(1, timings(100.0, window_ms=100, decode_ms=700, of=shared)),
        outcome(2, timings(100.05, window_ms=50, decode_ms=300, of=shared), tokens=4),
        outcome(3, error="HTTP 503: [red]busy[/red]"),
    ]
    draw(screen.console, outcomes)
    # 60 columns less labels and totals leave 29; the last is for a done mark, so 900 ms have 28 of 32 ms each.
    assert screen.lines[1:4] == [
        "  1     1      5+10 ...###======================|     900 ms",
        "  2     1       5+4   .###==========|ooooooooooo      450 ms",
        "  3     -         - failed: HTTP 503: [red]busy[/red]",
    ]


def test_the_axis_is_in_milliseconds_and_stands_above_the_columns() -> None:
    screen = Screen(width=100)
    draw(screen.console, [outcome(1, timings(prefill_ms=100, decode_ms=900))])
    axis, row = screen.lines[:2]
    start = axis.index("|0")
    assert row[start] == "#"
    assert axis.endswith("total ms")
    assert row[axis.index("|400")] == "="
    assert (axis.index("|400") - start) / (row.index("|") - start) == pytest.approx(0.4, abs=0.02)


def test_rows_fill_the_width_of_the_terminal_and_no_more() -> None:
    for width in (60, 100, 200):
        screen = Screen(width=width)
        draw(screen.console, [outcome(i, timings(100 + i / 50)) for i in range(1, 17)])
        longest = max(map(len, screen.lines[:17]))
        assert width - 3 <= longest <= width


def test_a_terminal_gets_colours_and_blocks_and_no_colour_gets_neither() -> None:
    told = [outcome(1, timings(window_ms=100, of=batch(1, closed_s=100.1)))]
    terminal = Screen(force_terminal=True, color_system="truecolor")
    draw(terminal.console, told)
    assert "░" in terminal.text
    assert "\x1b[32m█" in terminal.text
    plain = Screen(force_terminal=True, color_system="truecolor", no_color=True)
    draw(plain.console, told)
    assert "█" not in plain.text
    assert "...." in plain.text
    assert "\x1b[3" not in plain.text


def test_the_legend_tells_of_empty_rows_only_where_there_are_batches() -> None:
    continuous, static = Screen(), Screen()
    draw(continuous.console, [outcome(1, timings())])
    draw(static.console, [outcome(1, timings(of=batch(1)))])
    for word in (". waiting for the window", "- queued", "# prefill", "= decode", "| done"):
        assert word in continuous.text
    assert "o its row runs empty" not in continuous.text
    assert "o its row runs empty" in static.text


def test_ticks_are_round_numbers_with_room_for_them() -> None:
    assert tick_ms(1000, 60) == 200
    assert tick_ms(1000, 120) == 100
    assert tick_ms(60_000, 60) == 20_000
    assert tick_ms(3, 60) == 1
