"""perf: the command line of `perf stat`, which events a machine has, and what its output says. Knows no step.

Events are enabled by the measured program itself through perf's control descriptors, so that loading and warming up are
not counted. Output is the one with separators (`-x,`), which every perf since 2.6 writes.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ridgeline.core.errors import ConfigError, Unavailable

USAGE_EXIT = 129
"""perf's exit code for an option that it does not know."""
LINE_BYTES = 64
_ANSWER_S = 30.0
_PROBE_S = 30.0
# A kind of core of a hybrid processor stands before the name, modifiers (u: not in the kernel) after it.
_NAME = re.compile(r"(?:cpu\w*/)?(?P<name>[\w.-]+)[:/]?(?P<modifiers>[A-Za-z]*)")
_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")

NOT_HERE = "not supported by this CPU, or not passed through by the hypervisor"
_UNKNOWN = "this perf knows no such event for this CPU"
NO_PERF = (
    "perf is not installed; its package is linux-perf (Debian), linux-tools-$(uname -r) (Ubuntu) or perf (Fedora, Arch)"
)


@dataclass(frozen=True, slots=True)
class Event:
    """key: what Ridgeline calls it. names: perf's names for it, one a design of processor, best first."""

    key: str
    names: tuple[str, ...]


EVENTS = (
    Event("cpu_ns", ("task-clock",)),
    Event("page_faults", ("page-faults",)),
    Event("context_switches", ("context-switches",)),
    Event("cycles", ("cycles",)),
    Event("instructions", ("instructions",)),
    Event("cache_references", ("cache-references",)),
    Event("cache_misses", ("cache-misses",)),
    Event("llc_loads", ("LLC-loads",)),
    Event("llc_load_misses", ("LLC-load-misses",)),
    # Intel since Skylake; Intel since Golden Cove; AMD since Zen 4; Arm's Neoverse.
    Event(
        "stalls_memory",
        (
            "cycle_activity.stalls_mem_any",
            "exe_activity.bound_on_loads",
            "ex_no_retire.load_not_complete",
            "stall_backend_mem",
        ),
    ),
    Event("stalls_total", ("cycle_activity.stalls_total", "ex_no_retire.all")),
    Event("stalls_backend", ("stalled-cycles-backend", "stall_backend")),
    Event("stalls_frontend", ("stalled-cycles-frontend", "stall_frontend")),
)


@dataclass(frozen=True, slots=True)
class Count:
    """value: None where perf did not count; reason then says why. running_percent: how much of the time the event was
    on the hardware: below 100 perf has scaled the value up. user_only: the kernel's part is missing."""

    value: float | None
    reason: str | None = None
    running_percent: float = 100.0
    user_only: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """What perf counts on this machine. names: perf's name of each event that exists, by key. missing: why each of the
    others does not. blocked: a sentence with a remedy where perf is missing or may not count at all."""

    program: str | None
    names: Mapping[str, str]
    missing: Mapping[str, str]
    blocked: str | None = None


def offer(environment: Mapping[str, str], events: Sequence[Event] = EVENTS) -> Offer:
    """Asks perf for each event alone, because it refuses all for one that it does not know."""
    program, nothing = shutil.which("perf", path=environment.get("PATH")), shutil.which("true")
    if program is None or nothing is None:
        return Offer(None, {}, {event.key: NO_PERF for event in events}, NO_PERF)
    names, missing = dict[str, str](), dict[str, str]()
    for event in events:
        for name in event.names:
            reason = _probe([program, "stat", "-x,", "-e", name, "--", nothing], environment)
            if reason is None:
                names[event.key] = name
                missing.pop(event.key, None)
                break
            if missing.get(event.key, _UNKNOWN) == _UNKNOWN:
                missing[event.key] = reason
    denied = next((reason for reason in missing.values() if "perf_event_paranoid" in reason), None)
    return Offer(program, names, missing, denied if not names else None)


def _probe(command: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Why this event cannot be counted; None where it can."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PROBE_S, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"perf does not run ({error})"
    if (denied := permission(done.stderr)) is not None:
        return denied
    if "<not supported>" in done.stderr:
        return NOT_HERE
    if done.returncode != 0:
        return _UNKNOWN
    return None


def permission(text: str, setting: Path = _PARANOID) -> str | None:
    """A sentence with the remedy, if perf says that it may not count."""
    signs = ("permission", "paranoid", "operation not permitted", "monitoring and observability operations is limited")
    if not any(sign in text.lower() for sign in signs):
        return None
    try:
        level = f" (it is {setting.read_text().strip()} now)"
    except OSError:
        level = ""
    return (
        f"perf has no permission: kernel.perf_event_paranoid forbids it{level}; allow it until the next start with "
        "`sudo sysctl kernel.perf_event_paranoid=1`, or in a container with --cap-add PERFMON"
    )


def controlled(program: str, names: Sequence[str], output: Path, listen: int, answer: int) -> list[str]:
    """Nothing is counted until the measured program says so through the descriptors. perf since 5.10."""
    return [*_stat(program, names, output), "-D", "-1", "--control", f"fd:{listen},{answer}", "--"]


def uncontrolled(program: str, names: Sequence[str], output: Path) -> list[str]:
    """Everything is counted, the start of the program too."""
    return [*_stat(program, names, output), "--"]


def attached(program: str, names: Sequence[str], output: Path, pid: int, listen: int, answer: int) -> list[str]:
    """A process that runs already, with all its threads, until perf is interrupted."""
    return [*_stat(program, names, output), "-D", "-1", "--control", f"fd:{listen},{answer}", "-p", str(pid)]


def _stat(program: str, names: Sequence[str], output: Path) -> list[str]:
    return [program, "stat", "-x,", "-o", str(output), "-e", ",".join(names)]


@dataclass(frozen=True, slots=True)
class Control:
    """The measured program's end: tells perf when to count, and waits until it does."""

    tell: int
    answer: int

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Raises Unavailable if perf does not answer."""
        self._say(b"enable\n")
        try:
            yield
        finally:
            self._say(b"disable\n")

    def _say(self, word: bytes) -> None:
        os.write(self.tell, word)
        ready, _, _ = select.select([self.answer], [], [], _ANSWER_S)
        # perf writes "ack\n" and a zero byte.
        if not ready or b"ack" not in os.read(self.answer, 64):
            raise Unavailable(f"perf did not answer {word.decode().strip()!r} within {_ANSWER_S:.0f} s")


def parse(text: str, source: str) -> dict[str, Count]:
    """Counts by perf's name of the event; those of the kinds of core of a hybrid processor are added up.

    A line is value,unit,event,run time,percent of it counted,metric,its unit (man perf-stat, CSV FORMAT).
    Raises ConfigError, naming the line, for output that is cut off or is none.
    """
    found = dict[str, Count]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split(",")
        if len(fields) > 2 and not fields[0] and not fields[2]:  # a second derived figure of the event before
            continue
        if len(fields) < 5:
            raise ConfigError(f"{source}, line {number}: cut off, a line of perf has at least 5 fields: {line!r}")
        name, count = _count(fields, f"{source}, line {number}: {line!r}")
        found[name] = _sum(found[name], count) if name in found else count
    if not found:
        raise ConfigError(f"{source}: perf has written no counts")
    return found


def _count(fields: Sequence[str], where: str) -> tuple[str, Count]:
    value, unit, event = fields[:3]
    written = _NAME.fullmatch(event)
    if written is None:
        raise ConfigError(f"{where} names no event")
    name, user = written["name"], "u" in written["modifiers"]
    if value == "<not supported>":
        return name, Count(None, NOT_HERE, 0.0, user)
    if value == "<not counted>":
        return name, Count(None, "perf did not get to count it: too many events for this CPU at once", 0.0, user)
    try:
        number, running = float(value), float(fields[4] or 100)
    except ValueError:
        raise ConfigError(f"{where} has no number") from None
    return name, Count(number * 1e6 if unit == "msec" else number, None, running, user)


def _sum(first: Count, second: Count) -> Count:
    if first.value is None or second.value is None:
        return second if first.value is None else first
    running = min(first.running_percent, second.running_percent)
    return Count(first.value + second.value, None, running, first.user_only or second.user_only)


def difference(once: Mapping[str, Count], twice: Mapping[str, Count]) -> dict[str, Count]:
    """What the additional steps of the second run cost."""
    return {name: _minus(once[name], count) for name, count in twice.items() if name in once}


def _minus(once: Count, twice: Count) -> Count:
    if once.value is None or twice.value is None:
        return once if once.value is None else twice
    if twice.value < once.value:
        return Count(None, "less in a run of twice as many steps: lost in what a start costs; take more --steps")
    running = min(once.running_percent, twice.running_percent)
    return Count(twice.value - once.value, None, running, once.user_only or twice.user_only)
