"""Stopwatch: laps by name, which add up to the whole. Knows the clock and the age of this process; knows no phase."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

_LONGEST_START_S = 600.0  # an older process did not come here straight from its start


class Stopwatch:
    """since_ns: of time.perf_counter_ns, where the first lap begins; now, if left out."""

    def __init__(self, since_ns: int | None = None) -> None:
        self.begun_ns = self._last_ns = time.perf_counter_ns() if since_ns is None else since_ns
        self.laps_ms: dict[str, float] = {}

    def lap(self, name: str) -> float:
        """End a lap that began with the one before; its milliseconds."""
        now_ns = time.perf_counter_ns()
        ms = self.laps_ms[name] = round((now_ns - self._last_ns) / 1e6, 1)
        self._last_ns = now_ns
        return ms

    @property
    def total_ms(self) -> float:
        """From the beginning to the end of the last lap."""
        return (self._last_ns - self.begun_ns) / 1e6


def process_start_ns() -> int:
    """When this process started, as time.perf_counter_ns counts. Exact to 10 ms on Linux. For the main thread.

    Elsewhere, and where a container hides it, the CPU time that this thread spent so far stands in: a start mostly
    computes. (Not that of the process: numpy starts a thread a core, and where they spin it is seconds older than the
    process. psutil's create_time is not used either: on Linux it rests on a boot time in whole seconds.)
    """
    cpu_s = time.thread_time()
    age_s = _age_s()
    if age_s is None or not cpu_s - 0.1 <= age_s <= cpu_s + _LONGEST_START_S:
        age_s = cpu_s
    return time.perf_counter_ns() - int(age_s * 1e9)


def _age_s() -> float | None:
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return None


def budget_table(laps_ms: Mapping[str, float], total_ms: float) -> list[str]:
    """Aligned lines in seconds, and what no lap covers as `other`: as printed they add up to the total as printed.

    Laps are cut to hundredths, not rounded, so that `other` is never below zero.
    """
    hundredths = {name: int(ms // 10) for name, ms in laps_ms.items()}
    hundredths["other"] = round(total_ms / 10) - sum(hundredths.values())
    width = max(map(len, hundredths))
    return [f"  {name:<{width}}  {part / 100:7.2f} s" for name, part in hundredths.items()]
