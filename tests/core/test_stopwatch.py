"""The start's budget adds up as it is printed, and counts from the start of the process."""

from __future__ import annotations

import random
import time

import psutil

from ridgeline.core.stopwatch import Stopwatch, budget_table, process_start_ns


def test_the_printed_items_add_up_to_the_printed_total() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    for _ in range(100):
        laps_ms = {str(index): draw.uniform(0, 3000) for index in range(draw.randint(1, 9))}
        total_ms = sum(laps_ms.values()) + draw.uniform(0, 50)
        items = [float(line.split()[-2]) for line in budget_table(laps_ms, total_ms)]
        assert round(sum(items), 2) == round(total_ms / 1000, 2) or abs(sum(items) - total_ms / 1000) < 0.0051
        assert min(items) >= 0


def test_laps_cover_the_time_from_the_beginning_that_was_given() -> None:
    begun_ns = time.perf_counter_ns() - 2_000_000_000
    watch = Stopwatch(begun_ns)
    watch.lap("before")
    watch.lap("after")
    assert watch.laps_ms["before"] >= 2000
    assert abs(sum(watch.laps_ms.values()) - watch.total_ms) < 0.2


def test_the_start_of_the_process_is_where_the_system_has_it() -> None:
    age_s = (time.perf_counter_ns() - process_start_ns()) / 1e9
    by_psutil_s = time.time() - psutil.Process().create_time()  # a boot time in whole seconds
    assert time.process_time() - 0.2 <= age_s
    assert age_s == time.process_time() or abs(age_s - by_psutil_s) < 5 or age_s < by_psutil_s
