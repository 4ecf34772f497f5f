"""The start's budget adds up as it is printed, and counts from the start of the process."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from ridgeline.core.stopwatch import Stopwatch, budget_table


def test_the_printed_items_add_up_to_the_printed_total() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    draw = random.Random(seed)
    for _ in range(100):
        laps_ms = {str(index): draw.uniform(0, 3000) for index in range(draw.randint(1, 9))}
        total_ms = sum(laps_ms.values()) + draw.uniform(0, 50)
        items = [float(line.split()[-2]) for line in budget_table(laps_ms, total_ms)]
        assert abs(sum(items) - total_ms / 1000) < 0.0051, "half of the last digit"
        assert min(items) >= 0


def test_laps_cover_the_time_from_the_beginning_that_was_given() -> None:
    begun_ns = time.perf_counter_ns() - 2_000_000_000
    watch = Stopwatch(begun_ns)
    watch.lap("before")
    watch.lap("after")
    assert watch.laps_ms["before"] >= 2000
    assert abs(sum(watch.laps_ms.values()) - watch.total_ms) < 0.2


ALONE = ""
BUSY = """
import hashlib, threading
busy = [threading.Thread(target=hashlib.sha256, args=(bytes(2**28),)) for _ in range(3)]
for one in busy: one.start()
for one in busy: one.join()
"""


@pytest.mark.parametrize("before", [ALONE, BUSY], ids=["alone", "with busy threads"])
def test_the_start_of_a_process_lies_between_its_birth_and_its_first_line(before: str) -> None:
    code = (
        "import time; from ridgeline.core.stopwatch import process_start_ns\n"
        f"{before}\n"
        "first = time.perf_counter_ns(); print((first - process_start_ns()) / 1e9)"
    )
    begun_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert 0 < float(done.stdout) < time.perf_counter() - begun_s + 0.05
