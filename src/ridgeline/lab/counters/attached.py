"""Attached: counters around work that this very process does, for measurements whose engines live here. Knows no step.

perf is started once for every piece of work, attached to this process and all its threads, and told through its control
descriptors when to count; the energy counter is read before and after.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ridgeline.core.errors import ConfigError, Unavailable
from ridgeline.device.energy import Meter, Unmetered
from ridgeline.lab.counters import perf

KEYS = ("cycles", "instructions", "cache_misses")
"""What is counted beside energy, by perf's keys."""
LEAST_S, MOST_TIMES = 1.0, 50
_END_S = 30.0


@dataclass(frozen=True, slots=True)
class Counted:
    """values: of all that was done, by key (joules, and KEYS). reasons: why each of the others is missing."""

    values: Mapping[str, float]
    reasons: Mapping[str, str]


class Counters:
    """offer: what perf has on this machine. meter: of the device that computes."""

    def __init__(self, offer: perf.Offer, meter: Meter | Unmetered) -> None:
        self._offer, self._meter = offer, meter

    @property
    def missing(self) -> dict[str, str]:
        """Why a key cannot be counted at all here; without those that can."""
        found = {} if not isinstance(self._meter, Unmetered) else {"joules": self._meter.reason}
        blocked = self._offer.blocked
        return found | {key: blocked or self._offer.missing[key] for key in KEYS if key not in self._offer.names}

    @property
    def can_count(self) -> bool:
        return len(self.missing) < 1 + len(KEYS)

    def count(self, work: Callable[[], object]) -> Counted:
        """Does the work again and again, at least once and for a second, and counts what all of it took."""
        reasons = self.missing
        values = dict[str, float]()
        before = None if isinstance(self._meter, Unmetered) else self._meter.read()
        counts = self._by_perf(work)
        if before is not None and not isinstance(self._meter, Unmetered):
            values["joules"] = self._meter.joules(before, self._meter.read())
        for key, count in counts.items():
            if count.value is None:
                reasons[key] = count.reason or "perf counted nothing"
            else:
                values[key] = count.value
        return Counted(values, reasons)

    def _by_perf(self, work: Callable[[], object]) -> dict[str, perf.Count]:
        names = {key: self._offer.names[key] for key in KEYS if key in self._offer.names}
        if not names:
            _repeat(work)
            return {}
        try:
            with tempfile.TemporaryDirectory(prefix="ridgeline-") as folder:
                output = Path(folder) / "perf.csv"
                with _perf(self._offer, list(names.values()), output) as control, control.counting():
                    _repeat(work)
                written = perf.parse(output.read_text(encoding="utf-8", errors="replace"), "perf stat")
        except (Unavailable, ConfigError, OSError, subprocess.SubprocessError) as error:
            return {key: perf.Count(None, str(error)) for key in names}
        silent = perf.Count(None, "perf has written no count of it")
        return {key: written.get(name, silent) for key, name in names.items()}


def _repeat(work: Callable[[], object]) -> None:
    """A counter of energy that jumps ten times a second says nothing of less than a second."""
    until, times = time.perf_counter() + LEAST_S, 0
    while times == 0 or (time.perf_counter() < until and times < MOST_TIMES):
        work()
        times += 1


@contextmanager
def _perf(offer: perf.Offer, names: list[str], output: Path) -> Iterator[perf.Control]:
    assert offer.program is not None
    (listen, tell), (answer, acknowledge) = os.pipe(), os.pipe()
    command = perf.attached(offer.program, names, output, os.getpid(), listen, acknowledge)
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        pass_fds=(listen, acknowledge),
    )  # fmt: skip
    try:
        yield perf.Control(tell, answer)
    finally:
        child.send_signal(signal.SIGINT)  # perf writes what it counted when it is interrupted
        child.wait(_END_S)
        for fd in (listen, tell, acknowledge, answer):
            os.close(fd)
