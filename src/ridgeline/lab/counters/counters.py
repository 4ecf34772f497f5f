"""Counters: the table of what hardware counters say of a step, with a reason wherever one is missing. Knows counts and
their names; runs nothing.

A run file is {"format": 1, "kind": "counters", "provenance", "config", "interrupted", "results"}; results is a list of
cases as `entry` makes them. All figures are of one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ridgeline.core.errors import ConfigError
from ridgeline.lab.counters.ncu import Kernel, Profile
from ridgeline.lab.counters.perf import LINE_BYTES, Count
from ridgeline.lab.counters.stalls import Stack, top_stall
from ridgeline.lab.runfiles import read_kind

FORMAT, KIND = 1, "counters"
TOP_KERNELS = 10
WARM_STEPS = 3
NOT_RUN = "not reached: interrupted"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of step. context: of a decode step's sequences, or the length of a prefill's one prompt."""

    phase: str
    batch: int
    context: int

    @property
    def tokens(self) -> int:
        """Made or computed by a step."""
        return self.batch if self.phase == "decode" else self.context


def check_room(case: Case, steps: int, positions: int) -> None:
    """Raises ConfigError for steps that a model of so many positions has no room for."""
    if case.phase == "prefill":
        most = positions - 2
        if case.context > most:
            raise ConfigError(f"--prefill {case.context}: this model has room for prompts of {most} tokens at most")
        return
    around = WARM_STEPS + steps
    least, most = around // 2 + 1, positions - 1 - -(-around // 2)
    if not least <= case.context <= most:
        room = f"with contexts of {least} to {most}" if least <= most else "with no context; take fewer"
        raise ConfigError(
            f"--context {case.context}: this model has room for {steps} steps, and {WARM_STEPS} to warm up, {room}"
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """value: of one step. reason: why there is none. note: what the reader must know of it."""

    value: float | None
    unit: str
    source: str | None = None
    reason: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A counter as people read it. source: the tool that it comes from. per_token: whether a token has a share."""

    key: str
    heading: str
    unit: str
    source: str
    per_token: bool = True


COLUMNS = (
    Column("step_ns", "time, nothing watching", "ns", "clock"),
    Column("joules", "energy", "J", "energy"),
    Column("watts", "power", "W", "energy", per_token=False),
    Column("cpu_ns", "CPU time of all threads", "ns", "perf"),
    Column("cycles", "cycles", "", "perf"),
    Column("instructions", "instructions", "", "perf"),
    Column("ipc", "instructions a cycle", "", "perf", per_token=False),
    Column("cache_references", "cache references", "", "perf"),
    Column("cache_misses", "cache misses", "", "perf"),
    Column("llc_loads", "LLC loads", "", "perf"),
    Column("llc_load_misses", "LLC load misses", "", "perf"),
    Column("missed_bytes", "LLC misses x 64", "B", "perf"),
    Column("stalls_memory", "cycles waiting for memory", "", "perf"),
    Column("stalls_total", "cycles waiting", "", "perf"),
    Column("stalls_backend", "cycles the back end waits", "", "perf"),
    Column("stalls_frontend", "cycles the front end waits", "", "perf"),
    Column("page_faults", "page faults", "", "perf"),
    Column("context_switches", "context switches", "", "perf"),
    Column("kernels", "kernels", "", "ncu", per_token=False),
    Column("kernel_ns", "time in kernels", "ns", "ncu"),
    Column("dram_read_bytes", "read from DRAM", "B", "ncu"),
    Column("dram_write_bytes", "written to DRAM", "B", "ncu"),
    Column("l2_bytes", "through L2", "B", "ncu"),
    Column("l1_bytes", "through L1", "B", "ncu"),
    Column("shared_bytes", "through shared memory", "B", "ncu"),
    Column("occupancy_pct", "achieved occupancy", "%", "ncu", per_token=False),
    Column("tensor_pipe_pct", "tensor pipe busy", "%", "ncu", per_token=False),
    Column("memory_pipes_pct", "memory pipes busy", "%", "ncu", per_token=False),
    Column("issue_pct", "issue slots used", "%", "ncu", per_token=False),
)
OF = {column.key: column for column in COLUMNS}


def missing(source: str, reason: str) -> dict[str, Reading]:
    """Every column of a tool that did not measure."""
    return {c.key: Reading(None, c.unit, None, reason) for c in COLUMNS if c.source == source}


def perf_readings(
    counts: Mapping[str, Count], names: Mapping[str, str], steps: int, cpu: str, note: str | None
) -> dict[str, Reading]:
    """counts: by Ridgeline's keys. names: perf's names of them. cpu: its name, because makers count other things under
    one name. note: how they were counted, where that matters."""
    found = {key: _per_step(count, OF[key].unit, names.get(key, key), steps, note) for key, count in counts.items()}
    cycles, instructions, misses = (found[key] for key in ("cycles", "instructions", "cache_misses"))
    if cycles.value and instructions.value is not None:
        found["ipc"] = Reading(instructions.value / cycles.value, "", "perf")
    else:
        found["ipc"] = Reading(None, "", None, cycles.reason or instructions.reason or "perf counted no cycle")
    if misses.value is None:
        found["missed_bytes"] = Reading(None, "B", None, misses.reason)
    else:
        says = "an estimate of bytes from memory: without what was prefetched, and without what was written back"
        if "AMD" in cpu:
            says = "an upper bound of bytes from memory: AMD processors count what missed L2, and L3 may have had it"
        found["missed_bytes"] = Reading(misses.value * LINE_BYTES, "B", "perf", None, says)
    return found


def _per_step(count: Count, unit: str, name: str, steps: int, note: str | None) -> Reading:
    if count.value is None:
        return Reading(None, unit, None, count.reason)
    scaled = f"scaled up from {count.running_percent:.0f} % of the time" if count.running_percent < 99.9 else None
    user = "user mode only" if count.user_only else None
    notes = "; ".join(filter(None, (name, note, scaled, user)))
    return Reading(count.value / steps, unit, "perf", None, notes)


def ncu_readings(profile: Profile, keys: Sequence[str], dropped: Mapping[str, str], steps: int) -> dict[str, Reading]:
    """Sums over all kernels of a step; percentages are weighted with the kernels' durations."""
    passes = profile.passes
    note = f"kernels ran {passes} times each to count it" if passes is not None and passes > 1 else None
    found = {"kernels": Reading(len(profile.kernels) / steps, "", "ncu")}
    if not profile.kernels:
        found["kernels"] = Reading(None, "", None, next(iter(dropped.values()), "ncu saw no kernel"))
    for key in keys:
        held = [kernel for kernel in profile.kernels if key in kernel.values]
        unit = OF[key].unit
        if not held:
            found[key] = Reading(None, unit, None, dropped.get(key, "ncu gave no value"))
        elif unit == "%":
            found[key] = Reading(_weighted(held, key), unit, "ncu", None, note)
        else:
            found[key] = Reading(sum(kernel.values[key] for kernel in held) / steps, unit, "ncu", None, note)
    return found


def _weighted(kernels: Sequence[Kernel], key: str) -> float:
    weights = [kernel.values.get("kernel_ns", 1.0) for kernel in kernels]
    total = sum(kernel.values[key] * weight for kernel, weight in zip(kernels, weights, strict=True))
    return total / sum(weights)


def kernel_rows(traffic: Sequence[Kernel], pipes: Sequence[Kernel], steps: int) -> list[dict[str, Any]]:
    """The kernels that took longest, launches of one name together. Both runs launch the same ones."""
    rows = list[dict[str, Any]]()
    for name in dict.fromkeys(kernel.name for kernel in traffic):
        mine = [kernel for kernel in traffic if kernel.name == name]
        there = [kernel for kernel in pipes if kernel.name == name]
        occupied = [kernel for kernel in there if "occupancy_pct" in kernel.values]
        stall = top_stall(there)
        rows.append(
            {
                "name": name,
                "launches": len(mine) / steps,
                "ns": _summed(mine, ("kernel_ns",), steps),
                "dram_bytes": _summed(mine, ("dram_read_bytes", "dram_write_bytes"), steps),
                "occupancy_pct": _weighted(occupied, "occupancy_pct") if occupied else None,
                "stall": None if stall is None else {"reason": stall[0], "share": stall[1]},
            }
        )
    return sorted(rows, key=lambda row: -(row["ns"] or 0.0))[:TOP_KERNELS]


def _summed(kernels: Sequence[Kernel], keys: Sequence[str], steps: int) -> float | None:
    values = [kernel.values.get(key) for kernel in kernels for key in keys]
    known = [value for value in values if value is not None]
    return sum(known) / steps if len(known) == len(values) else None


def entry(
    case: Case,
    device: str,
    readings: Mapping[str, Reading],
    stacks: Sequence[Stack],
    kernels: Sequence[Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """One case of a run file. Every column is there, with a value or a reason."""
    return asdict(case) | {
        "tokens": case.tokens,
        "device": device,
        "counters": {c.key: asdict(readings.get(c.key, Reading(None, c.unit, None, NOT_RUN))) for c in COLUMNS},
        "stacks": [asdict(stack) for stack in stacks],
        "kernels": None if kernels is None else [dict(row) for row in kernels],
    }


@dataclass(frozen=True, slots=True)
class Counted:
    """Bytes that a step moved between memory and the chip. how: what counted them; reason: why nothing did."""

    bytes: int | None
    how: str | None = None
    reason: str | None = None


def counted_bytes(results: Sequence[Mapping[str, Any]], phase: str, batch: int) -> Counted:
    """Of a step of this kind, from `results` of a run file: what ncu counted at the DRAM, otherwise what perf says of
    missed cache lines."""
    found = next((case for case in results if case["phase"] == phase and case["batch"] == batch), None)
    if found is None:
        return Counted(None, None, f"no counters of {phase} at batch {batch}; run `ridgeline counters` with it")
    counters = found["counters"]
    read, written = counters["dram_read_bytes"], counters["dram_write_bytes"]
    if read["value"] is not None and written["value"] is not None:
        return Counted(round(read["value"] + written["value"]), "DRAM bytes counted by ncu")
    missed = counters["missed_bytes"]
    if missed["value"] is not None:
        return Counted(round(missed["value"]), f"{OF['missed_bytes'].heading}, {missed['note']}")
    return Counted(None, None, f"{read['reason'] or written['reason']}; {missed['reason']}")


def read_run(path: Path) -> dict[str, Any]:
    """Raises ConfigError for a file that this version did not write."""
    document = read_kind(path, KIND)
    try:
        for case in document["results"]:
            _check(case)
        if not isinstance(document["config"]["model"], str):
            raise TypeError("model")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: damaged ({error!r}); run `ridgeline counters` again") from error
    return document


def _check(case: Mapping[str, Any]) -> None:
    number: Callable[[Any], bool] = lambda value: value is None or isinstance(value, int | float)  # noqa: E731
    Case(str(case["phase"]), int(case["batch"]), int(case["context"]))
    if int(case["tokens"]) < 1 or not isinstance(case["device"], str):
        raise ValueError(f"tokens {case['tokens']!r}, device {case['device']!r}")
    for column in COLUMNS:
        reading = Reading(**case["counters"][column.key])
        if not number(reading.value) or (reading.value is None and not isinstance(reading.reason, str)):
            raise ValueError(f"{column.key} {reading}")
    for item in case["stacks"]:
        stack = Stack(**item)
        if not all(number(share) and share is not None for share in (stack.shares or {}).values()):
            raise ValueError(f"stack {stack}")
    for row in case["kernels"] or ():
        if not (isinstance(row["name"], str) and all(number(row[key]) for key in ("launches", "ns", "dram_bytes"))):
            raise ValueError(f"kernel {row}")
