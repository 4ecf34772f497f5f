"""Counted: the child process whose steps a profiler watches. Loads the model, warms up, and lets the counters run for
exactly the wanted steps. Knows no profiler's output."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ridgeline.build import EngineOrder
from ridgeline.core.records import write_run
from ridgeline.device.energy import Meter, Unmetered, meter_for
from ridgeline.device.trace import NvtxRanges, has_nvtx
from ridgeline.lab.counters.counters import WARM_STEPS, Case, check_room
from ridgeline.lab.counters.perf import Control
from ridgeline.lab.rig import Workbench
from ridgeline.runner.places import ranged, wrap_places

FORMAT, KIND = 1, "counted-steps"
ENERGY_S, ENERGY_LIMIT_S = 1.0, 10.0
_LOOK_S = 0.005

Step = Callable[[], object]


def run(order: EngineOrder, case: Case, steps: int, watch: str, control: Control | None, report: Path) -> None:
    """Runs the steps and writes what only the child knows. watch: none, perf or ncu; with none energy is
    measured too.

    Raises ConfigError for steps that the model has no room for, Unavailable if perf does not answer.
    """
    bench = Workbench.open(order, lambda *_: None)
    device = bench.loaded.device
    watched: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "none": nullcontext,
        "perf": control.counting if control is not None else nullcontext,
        "ncu": device.profiled_range,
    }
    with _warm(bench, case, steps, named=watch == "ncu") as step, watched[watch]():
        taken_ns = [_timed(step) for _ in range(steps)]
    found = {
        "format": FORMAT,
        "kind": KIND,
        "device": device.name,
        "device_type": device.torch_device.type,
        "step_ns": statistics.median(taken_ns),
        "energy": None,
    }
    if watch == "none":
        found["energy"] = measure_energy(bench, case, steps, meter_for(device.torch_device))
    write_run(report, found)


@contextmanager
def ready(bench: Workbench, case: Case, steps: int, *, named: bool = False) -> Iterator[Step]:
    """A step that may be called WARM_STEPS + steps times. named: the model's places are NVTX ranges where there is
    NVTX. Raises ConfigError."""
    check_room(case, steps, bench.spec.max_positions)
    decodes = case.phase == "decode"
    rig = bench.rig(case.batch, case.context, WARM_STEPS + steps) if decodes else bench.rig(1, case.context, 1)
    undo = wrap_places(rig.runner, ranged(NvtxRanges())) if named and has_nvtx() else lambda: None
    try:
        if decodes:
            with rig.decoding() as step:
                yield step
        else:
            yield lambda: rig.prefill(case.context)
    finally:
        undo()


@contextmanager
def _warm(bench: Workbench, case: Case, steps: int, *, named: bool = False) -> Iterator[Step]:
    with ready(bench, case, steps, named=named) as step:
        for _ in range(WARM_STEPS):
            step()
        yield step


def measure_energy(
    bench: Workbench, case: Case, steps: int, meter: Meter | Unmetered, limit_s: float = ENERGY_LIMIT_S
) -> dict[str, Any]:
    """Joules a step over at least a second of steps; None with the reason where there is no such counter, or where it
    moves too seldom for so short a run.

    A counter moves in jumps, at worst ten a second. So power is taken between the first and the last jump that were
    seen, and a step's energy is that power for the time of a step.
    """
    nothing: dict[str, Any] = {"joules": None, "watts": None, "source": None, "reason": None, "note": None}
    if isinstance(meter, Unmetered):
        return nothing | {"reason": meter.reason}
    used, span_s, took_s, done = 0.0, 0.0, 0.0, 0
    in_round = _round_steps(bench, case, steps)
    while took_s < ENERGY_S or (span_s < ENERGY_S / 2 and took_s < limit_s):
        with _warm(bench, case, in_round) as step:
            begun = time.perf_counter()
            jumps = _jumps(step, in_round, meter)
            took_s, done = took_s + time.perf_counter() - begun, done + in_round
        if len(jumps) > 1:
            (first_s, first), (last_s, last) = jumps[0], jumps[-1]
            used, span_s = used + meter.joules(first, last), span_s + last_s - first_s
    if span_s < ENERGY_S / 2:
        reason = (
            f"{meter.source} is too coarse: between its jumps lay {span_s:.1f} of {took_s:.1f} s; take more --steps"
        )
        return nothing | {"source": meter.source, "reason": reason}
    watts = used / span_s
    note = f"over {took_s:.1f} s, with all else that ran on the device"
    return nothing | {"joules": watts * took_s / done, "watts": watts, "source": meter.source, "note": note}


def _jumps(step: Step, steps: int, meter: Meter) -> list[tuple[float, tuple[int, ...]]]:
    """Runs the steps and looks at the counter now and then; when it was seen to have moved, and to what."""
    found, last, looked = list[tuple[float, tuple[int, ...]]](), meter.read(), time.perf_counter()
    for _ in range(steps):
        step()
        now = time.perf_counter()
        if now - looked < _LOOK_S:
            continue
        looked, reading = now, meter.read()
        if reading != last:
            found.append((now, reading))
            last = reading
    return found


def _round_steps(bench: Workbench, case: Case, steps: int) -> int:
    """About a second of them in one piece, because a counter that moves seldom wants long pieces; no more than fit
    around the context."""
    with _warm(bench, case, 1) as step:
        second = math.ceil(ENERGY_S * 1e9 / max(1, _timed(step)))
    if case.phase != "decode":
        return max(steps, second)
    room = 2 * min(case.context - 1, bench.spec.max_positions - case.context - 2) - WARM_STEPS
    return max(steps, min(second, room))


def _timed(step: Step) -> int:
    begun = time.perf_counter_ns()
    step()
    return time.perf_counter_ns() - begun
