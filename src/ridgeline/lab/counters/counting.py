"""Counting: steps run in children under the profilers that there are, and what comes together of it. Knows no argv.

Each case is run once with nothing watching (time and energy), once under perf and twice under ncu (ncu.GROUPS).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ridgeline.core.errors import ConfigError, Unavailable
from ridgeline.core.records import cpu_name
from ridgeline.lab.counters import ncu, perf
from ridgeline.lab.counters.counters import OF, Case, Reading, entry, kernel_rows, missing, ncu_readings, perf_readings
from ridgeline.lab.counters.stalls import Stack, cpu_stack, gpu_stack
from ridgeline.lab.machine import Progress
from ridgeline.lab.tradeoffs.children import process_tree
from ridgeline.runner.places import HOST, REGION_OF

STEPS, NCU_STEPS = 32, 2
CHILD_TIMEOUT_S = 1800.0
_NCU_TRIES = 12
_LINES_TOLD = 3
_PERF_DIFFERENCE = "difference of two runs, because this perf cannot be told when to count (--control, perf 5.10)"


@dataclass(frozen=True, slots=True)
class Plan:
    """steps: None: as many as suit each tool. tool: auto, perf or ncu; one that is asked for by name must work."""

    cases: tuple[Case, ...]
    steps: int | None
    tool: str

    def asked(self, tool: str) -> bool:
        return self.tool in ("auto", tool)


@dataclass(frozen=True, slots=True)
class Launch:
    """How a child is started. program: its argv before the options of counted.py. environment: all of it."""

    program: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Done:
    """report: what the child wrote, None if it did not come so far. said: all that it and the profiler printed."""

    code: int
    said: str
    report: Mapping[str, Any] | None

    @property
    def last_words(self) -> str:
        return " / ".join(self.said.strip().splitlines()[-_LINES_TOLD:]) or f"ended with code {self.code}"


@dataclass(frozen=True, slots=True)
class Traffic:
    """bytes: of a step. places: by runner/places.py's names, where the tool tells them apart. how: what counted them;
    reason: why nothing did."""

    bytes: int | None
    places: Mapping[str, int] | None = None
    how: str | None = None
    reason: str | None = None


class Counting:
    """Raises ConfigError from every verb for a tool that was asked for by name and does not work."""

    def __init__(self, plan: Plan, launch: Launch, progress: Progress, folder: Path) -> None:
        self._plan, self._folder, self._progress = plan, folder, progress
        # Profilers write numbers as the language has them.
        self._launch = Launch(launch.program, {**launch.environment, "LC_ALL": "C"})
        self._offer: perf.Offer | None = None
        self._ncu = ncu.locate(launch.environment.get("PATH"))
        self._denied: str | None = None  # by ncu, once it was tried
        self._runs = 0

    def entries(self) -> Iterator[dict[str, Any]]:
        """One for each case, in turn."""
        self._check_tools()
        for number, case in enumerate(self._plan.cases):
            self._progress(f"{case.phase}, batch {case.batch}", number, len(self._plan.cases))
            yield self._entry(case)

    def traffic(self, case: Case, *, on_gpu: bool) -> Traffic:
        """Bytes between memory and the chip in one step; on a GPU of every place by itself. Nothing is raised: whatever
        does not work is the reason why there is no number."""
        try:
            return self._gpu_traffic(case) if on_gpu else self._cpu_traffic(case)
        except (Unavailable, ConfigError) as error:
            return Traffic(None, reason=str(error))

    def _gpu_traffic(self, case: Case) -> Traffic:
        reason = self._denied if self._ncu is not None else ncu.NO_NCU
        if reason is not None:
            return Traffic(None, reason=reason)
        profile, why = self._profile(ncu.TRAFFIC, case, 1)
        places = dict[str, int]()
        for kernel in profile.kernels:
            moved = [kernel.values.get(key) for key in ("dram_read_bytes", "dram_write_bytes")]
            if None in moved:
                return Traffic(None, reason=next(iter(why.values()), "ncu gave no bytes of a kernel"))
            place = kernel.place if kernel.place in REGION_OF else HOST
            places[place] = places.get(place, 0) + round(sum(value for value in moved if value is not None))
        if not places:
            return Traffic(None, reason=self._denied or next(iter(why.values()), "ncu saw no kernel"))
        return Traffic(sum(places.values()), places, "bytes read from and written to DRAM, counted by ncu")

    def _cpu_traffic(self, case: Case) -> Traffic:
        if self._offer is None:
            self._offer = perf.offer(self._launch.environment)
        key, steps = "cache_misses", self._plan.steps or STEPS
        reason = self._offer.blocked or self._offer.missing.get(key)
        if reason is not None:
            return Traffic(None, reason=f"perf has no cache misses: {reason}" if not self._offer.blocked else reason)
        raw, note = self._perf_counts(self._offer, case, steps)
        names = self._offer.names
        counts = {mine: raw[name] for mine, name in names.items() if name in raw}
        counts |= {mine: perf.Count(None, why) for mine, why in self._offer.missing.items()}
        silent = perf.Count(None, "perf has written no count of it")
        counts |= {mine: silent for mine in names if mine not in counts}
        missed = perf_readings(counts, names, steps, cpu_name(), note)["missed_bytes"]
        if missed.value is None:
            return Traffic(None, reason=missed.reason)
        return Traffic(round(missed.value), None, f"{OF['missed_bytes'].heading} counted by perf: {missed.note}")

    def _check_tools(self) -> None:
        if self._plan.asked("perf"):
            self._progress("asking perf for its events", 0, 0)
            self._offer = perf.offer(self._launch.environment)
            self._refuse("perf", self._offer.blocked)
        if self._plan.asked("ncu") and self._ncu is None:
            self._refuse("ncu", ncu.NO_NCU)

    def _refuse(self, tool: str, reason: str | None) -> None:
        if reason is not None and self._plan.tool == tool:
            raise ConfigError(f"--tool {tool}: {reason}")

    def _entry(self, case: Case) -> dict[str, Any]:
        plain = self._child((), case, self._plan.steps or STEPS, "none")
        if plain.report is None:
            error = next((line for line in plain.said.splitlines() if line.startswith("error: ")), None)
            if plain.code == 2 and error is not None:
                raise ConfigError(error.removeprefix("error: "))
            raise Unavailable(f"the steps of {case.phase} could not be run: {plain.last_words}")
        energy = plain.report["energy"]
        readings = {"step_ns": Reading(float(plain.report["step_ns"]), "ns", "clock", None, "median")}
        for key in ("joules", "watts"):
            readings[key] = Reading(energy[key], OF[key].unit, energy["source"], energy["reason"], energy["note"])
        by_perf, cpu = self._perf(case)
        by_ncu, gpu, kernels = self._by_ncu(case, on_gpu=plain.report["device_type"] == "cuda")
        return entry(case, plain.report["device"], readings | by_perf | by_ncu, (cpu, gpu), kernels)

    def _perf(self, case: Case) -> tuple[dict[str, Reading], Stack]:
        if self._offer is None:
            return _without("perf", "not asked for (--tool ncu)")
        if self._offer.blocked is not None:
            return _without("perf", self._offer.blocked)
        steps, names = self._plan.steps or STEPS, self._offer.names
        try:
            raw, note = self._perf_counts(self._offer, case, steps)
        except (Unavailable, ConfigError) as error:
            self._refuse("perf", str(error))
            return _without("perf", str(error))
        silent = perf.Count(None, "perf has written no count of it")
        counts = {key: raw.get(name, silent) for key, name in names.items()}
        counts |= {key: perf.Count(None, reason) for key, reason in self._offer.missing.items()}
        return perf_readings(counts, names, steps, cpu_name(), note), cpu_stack(counts)

    def _perf_counts(self, offer: perf.Offer, case: Case, steps: int) -> tuple[dict[str, perf.Count], str | None]:
        """Counts of all steps together, and how they were counted where it was the second-best way."""
        assert offer.program is not None
        names, output = list(offer.names.values()), self._folder / "perf.csv"
        with _pipes() as (listen, tell, acknowledge, answer):
            prefix = perf.controlled(offer.program, names, output, listen, acknowledge)
            fds = (listen, tell, acknowledge, answer)
            done = self._child(prefix, case, steps, "perf", f"{tell},{answer}", fds)
        if done.report is not None:
            return perf.parse(_text(output), "perf stat"), None
        if done.code != perf.USAGE_EXIT:
            raise Unavailable(perf.permission(done.said) or f"the run under perf failed: {done.last_words}")
        runs = []
        for times in (1, 2):
            done = self._child(perf.uncontrolled(offer.program, names, output), case, steps * times, "perf")
            if done.report is None:
                raise Unavailable(f"the run under perf failed: {done.last_words}")
            runs.append(perf.parse(_text(output), "perf stat"))
        return perf.difference(*runs), _PERF_DIFFERENCE

    def _by_ncu(self, case: Case, *, on_gpu: bool) -> tuple[dict[str, Reading], Stack, list[dict[str, Any]] | None]:
        reason = None
        if not self._plan.asked("ncu"):
            reason = "not asked for (--tool perf)"
        elif not on_gpu:
            reason = "the model runs on the CPU; ncu counts on an NVIDIA GPU"
        elif self._ncu is None:
            reason = ncu.NO_NCU
        else:
            reason = self._denied
        self._refuse("ncu", reason)
        if reason is not None:
            return *_without("ncu", reason), None
        steps = self._plan.steps or NCU_STEPS
        readings, profiles = dict[str, Reading](), list[ncu.Profile]()
        for group in ncu.GROUPS:
            profile, why = self._profile(group, case, steps)
            if self._denied is not None:
                return *_without("ncu", self._denied), None
            profiles.append(profile)
            found = ncu_readings(profile, [metric.key for metric in group.metrics if metric.key in OF], why, steps)
            readings = found | {key: reading for key, reading in readings.items() if reading.value is not None}
        traffic, pipes = (profile.kernels for profile in profiles)
        return readings, gpu_stack(pipes), kernel_rows(traffic or pipes, pipes, steps)

    def _profile(self, group: ncu.Group, case: Case, steps: int) -> tuple[ncu.Profile, dict[str, str]]:
        """What ncu saw, and why it has nothing of a metric. Asks again without what this ncu does not know."""
        assert self._ncu is not None
        wanted, output = ncu.Wanted(group), self._folder / "ncu.csv"
        reason = "this ncu knows none of the metrics"
        for _ in range(_NCU_TRIES):
            output.unlink(missing_ok=True)
            done = self._child(ncu.command(self._ncu, wanted, output), case, steps, "ncu")
            written = _text(output)
            if '"ID"' in written and done.report is not None:
                try:
                    return ncu.parse(written, f"ncu ({group.name})"), wanted.dropped
                except ConfigError as error:
                    reason = str(error)
                    break
            said = written + "\n" + done.said
            reason = ncu.complaint(said) or f"the run under ncu failed: {done.last_words}"
            if not wanted.drop(said):
                break
        self._refuse("ncu", reason)
        self._denied = reason if reason == ncu.NO_PERMISSION else None
        return ncu.Profile((), None), {metric.key: reason for metric in group.metrics}

    def _child(
        self,
        prefix: Sequence[str],
        case: Case,
        steps: int,
        watch: str,
        control: str | None = None,
        fds: Sequence[int] = (),
    ) -> Done:
        """Raises Unavailable for one that does not end; leaves none behind."""
        self._runs += 1
        report = self._folder / f"report-{self._runs}.json"
        flags = ["--phase", case.phase, "--batch", str(case.batch), "--context", str(case.context)]
        flags += ["--steps", str(steps), "--watch", watch, "--report", str(report)]
        flags += [] if control is None else ["--control", control]
        with (self._folder / "said.txt").open("w+b") as said:
            child = subprocess.Popen(
                [*prefix, *self._launch.program, *flags],
                stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                env=dict(self._launch.environment), pass_fds=tuple(fds),
            )  # fmt: skip
            try:
                code = child.wait(CHILD_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise Unavailable(
                    f"{case.phase} did not end within {CHILD_TIMEOUT_S:.0f} s; take fewer --steps"
                ) from None
            finally:
                _end(child)
            said.seek(0)
            words = said.read().decode(errors="replace")
        return Done(code, words, json.loads(report.read_text()) if report.exists() else None)


def count(plan: Plan, launch: Launch, progress: Progress) -> tuple[list[dict[str, Any]], bool]:
    """Results of a run file, and whether Ctrl-C ended it early; then the cases that were measured are there.

    Raises ConfigError for steps that the model has no room for and for a tool that was asked for and does not work.
    """
    results = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory(prefix="ridgeline-") as folder:
        try:
            for found in Counting(plan, launch, progress, Path(folder)).entries():
                results.append(found)
        except KeyboardInterrupt:
            return results, True
    return results, False


def _without(tool: str, reason: str) -> tuple[dict[str, Reading], Stack]:
    return missing(tool, reason), Stack(tool, "cycles", None, reason)


@contextlib.contextmanager
def _pipes() -> Iterator[tuple[int, int, int, int]]:
    """Two pipes: where perf listens and the child tells, where perf acknowledges and the child reads the answer."""
    (listen, tell), (answer, acknowledge) = os.pipe(), os.pipe()
    try:
        yield listen, tell, acknowledge, answer
    finally:
        for fd in (listen, tell, acknowledge, answer):
            os.close(fd)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _end(child: subprocess.Popen[bytes]) -> None:
    """With all that it started: a profiler that is killed leaves its program running."""
    for process in process_tree(child.pid) if child.poll() is None else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    child.wait()
