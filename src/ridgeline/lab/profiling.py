"""Profiling: steps of one kind under torch's profiler, and again under nsys. Knows steps; knows no argv.

What it shows is where the time goes. The profiler costs time at every operation, so how long a step takes is for the
tools that measure without it.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ridgeline.build import EngineOrder
from ridgeline.core.cost import REGIONS
from ridgeline.core.errors import ConfigError
from ridgeline.core.profile import PlaceTime, shares
from ridgeline.core.records import provenance, write_run
from ridgeline.device.trace import NoRanges, NvtxRanges, Operation, Ranges, Trace, TraceRanges, has_nvtx
from ridgeline.lab.machine import Progress
from ridgeline.lab.rig import Rig, Workbench
from ridgeline.runner.places import REGION_OF, ranged, wrap_places
from ridgeline.runner.runner import Runner

FORMAT, KIND = 1, "profile"
EXIT_INTERRUPTED = 130
PHASES = {"prefill": ("prefill",), "decode": ("decode",), "both": ("prefill", "decode")}
PREFILLS = 3
_WARM_STEPS = 2
_SHOWN_OPERATIONS = 12
_HOST = REGIONS[-1]
NSYS_HINT = (
    "nsys is not on the PATH: install NVIDIA Nsight Systems (https://developer.nvidia.com/nsight-systems, or the "
    "package nsight-systems of NVIDIA's CUDA repository), or leave --nsys out"
)


@dataclass(frozen=True, slots=True)
class Ask:
    """phase: of PHASES. steps: decode steps of `batch` sequences over `context` tokens. prefill: tokens of a prompt."""

    phase: str
    batch: int
    context: int
    steps: int
    prefill: int
    shapes: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One kind of step that can be run again and again."""

    phase: str
    count: int
    runner: Runner
    run: Callable[[], object]

    @property
    def name(self) -> str:
        return f"{self.phase} step"


@contextlib.contextmanager
def steps_of(bench: Workbench, ask: Ask) -> Iterator[list[Step]]:
    """The steps that were asked for, warm. Raises ConfigError where the model has no room for them."""
    with contextlib.ExitStack() as stack:
        steps = []
        for phase in PHASES[ask.phase]:
            if phase == "prefill":
                rig, count, warm = _prefill_rig(bench, ask.prefill), PREFILLS, 1
                run: Callable[[], object] = partial(rig.prefill, ask.prefill)
            else:
                count, warm = ask.steps, _WARM_STEPS
                rig = bench.rig(ask.batch, ask.context, count + warm)
                run = stack.enter_context(rig.decoding())
            for _ in range(warm):
                run()
            assert isinstance(rig.engine.runner, Runner)
            steps.append(Step(phase, count, rig.engine.runner, run))
        yield steps


def _prefill_rig(bench: Workbench, tokens: int) -> Rig:
    most = bench.spec.max_positions - 1
    if tokens > most:
        raise ConfigError(f"--prefill {tokens}: the longest prompt of this model that leaves room to answer has {most}")
    return bench.rig(1, tokens, 0)


def run_steps(steps: Sequence[Step], ranges: Ranges, progress: Progress) -> bool:
    """Each kind in turn, with its places named. False: Ctrl-C ended it before."""
    try:
        for step in steps:
            undo = wrap_places(step.runner, ranged(ranges))
            try:
                for done in range(step.count):
                    progress(step.phase, done, step.count)
                    with ranges.range(step.name):
                        step.run()
            finally:
                undo()
    except KeyboardInterrupt:
        return False
    return True


def run_bare(order: EngineOrder, ask: Ask, progress: Progress) -> int:
    """The same steps for an outer profiler, with NVTX ranges where torch has them. The exit code."""
    with steps_of(Workbench.open(order, lambda *_: None), ask) as steps:
        whole = run_steps(steps, NvtxRanges() if has_nvtx() else NoRanges(), progress)
    return 0 if whole else EXIT_INTERRUPTED


def run(
    order: EngineOrder,
    ask: Ask,
    output: Path,
    command: list[str],
    nsys: Nsys | None,
    console: Console,
    progress: Callable[[], contextlib.AbstractContextManager[Progress]],
) -> int:
    """Writes OUTPUT/trace.json.gz and OUTPUT/profile.json, and OUTPUT/timeline.nsys-rep with nsys. The exit code; 130
    for Ctrl-C, after which what was traced is still written. Raises ConfigError."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {output}: it cannot be made ({error.strerror or error})") from error
    about = provenance(command)
    bench, trace = Workbench.open(order, lambda *_: None), Trace(shapes=ask.shapes)
    with progress() as bar, steps_of(bench, ask) as steps:
        trace.start()
        try:
            whole = run_steps(steps, TraceRanges(), bar)
        finally:
            trace.stop()
    operations, results = trace.operations(), [result_of(trace, step, ask) for step in steps]
    document = _head(about, bench, ask) | {
        "interrupted": not whole,
        "results": results,
        "operations": [asdict(row) for row in operations],
        "nsys": None,
    }
    try:
        trace.write(output / "trace.json.gz")
        write_run(output / "profile.json", document)
    except OSError as error:
        raise ConfigError(f"--output {output}: it cannot be written ({error.strerror or error})") from error
    show(console, results, operations)
    _say(console, f"Trace: {output / 'trace.json.gz'}; a local file for https://ui.perfetto.dev or chrome://tracing")
    _say(console, f"Run file: {output / 'profile.json'}")
    if not whole:
        _say(console, "Interrupted; what was traced by then is written.")
        return EXIT_INTERRUPTED
    if nsys is not None:
        write_run(output / "profile.json", document | {"nsys": nsys.timeline(console)})
    return 0


def _head(about: dict[str, Any], bench: Workbench, ask: Ask) -> dict[str, Any]:
    config = {
        "model": bench.order.name,
        "spec": asdict(bench.spec),
        "formats": asdict(bench.formats),
        "device": bench.loaded.device.name,
        "ask": asdict(ask),
    }
    return {"format": FORMAT, "kind": KIND, "provenance": about, "config": config}


def result_of(trace: Trace, step: Step, ask: Ask) -> dict[str, Any]:
    """One kind of step: its places, and as `host` what was in none of them. Times are sums over `steps`."""
    found = trace.ranges(within=step.name)
    whole = found.pop(step.name, None)
    places = [
        PlaceTime(region, place, found[place].calls, found[place].host_ns, found[place].device_ns)
        for place, region in REGION_OF.items()
        if place in found
    ]
    if whole is not None:
        host_ns = whole.host_ns - sum(place.host_ns for place in places)
        device_ns = None if whole.device_ns is None else whole.device_ns - sum(p.device_ns or 0 for p in places)
        places.append(PlaceTime(_HOST, _HOST, whole.calls, host_ns, device_ns))
    decodes = step.phase == "decode"
    return {
        "phase": step.phase,
        "batch": ask.batch if decodes else 1,
        "context": ask.context if decodes else ask.prefill,
        "steps": 0 if whole is None else whole.calls,
        "places": [asdict(place) for place in places],
    }


def show(console: Console, results: Sequence[dict[str, Any]], operations: Sequence[Operation]) -> None:
    for result in results:
        places, steps = tuple(PlaceTime(**place) for place in result["places"]), max(1, result["steps"])
        title = f"{result['phase']}: {result['steps']} steps, batch {result['batch']}, context {result['context']}"
        table = _table(title, "place", "region", "calls a step", "host us", "device us", "share")
        for place, share in zip(places, shares(places), strict=True):
            table.add_row(
                place.place, place.region, f"{place.calls / steps:.0f}", f"{place.host_ns / steps / 1000:.1f}",
                _us(place.device_ns, steps), f"{share * 100:.1f} %",
            )  # fmt: skip
        console.print(table, highlight=False)
        console.print()
    table = _table("The operations that cost most, all steps together", "operation", "calls", "host us", "device us")
    for row in operations[:_SHOWN_OPERATIONS]:
        table.add_row(row.name, str(row.calls), f"{row.self_host_ns / 1000:.0f}", _us(row.device_ns, 1))
    console.print(table, highlight=False)
    console.print()
    _say(console, "Times contain what the profiler costs: shares and order hold, sums are longer than without it.")


def _us(device_ns: int | None, steps: int) -> str:
    return "-" if device_ns is None else f"{device_ns / steps / 1000:.1f}"


def _table(title: str, *headings: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left"
    )
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 or heading == "region" else "right")
    return table


@dataclass(frozen=True, slots=True)
class Nsys:
    """program: nsys. steps: the command that runs the same steps and names their places. must: the operator asked for
    it by name, so that a failure is one."""

    program: str
    output: Path
    steps: tuple[str, ...]
    must: bool

    @property
    def command(self) -> list[str]:
        given = ["--trace=cuda,nvtx,osrt", "--output", str(self.output / "timeline"), "--force-overwrite", "true"]
        return [self.program, "profile", *given, *self.steps]

    def timeline(self, console: Console) -> dict[str, Any]:
        """Runs it. Raises ConfigError if it fails and must not."""
        _say(console, f"Running: {shlex.join(self.command)}")
        try:
            done = subprocess.run(self.command, capture_output=True, text=True, errors="replace", check=False)
            code, said = done.returncode, (done.stderr or done.stdout).strip()
        except OSError as error:
            code, said = 127, str(error)
        if code:
            last = "\n".join(said.splitlines()[-5:])
            if self.must:
                raise ConfigError(f"nsys ended with code {code}: {last}; leave --nsys out to do without it")
            _say(console, f"nsys ended with code {code}, so there is no timeline: {last}")
        else:
            _say(console, f"Timeline: {self.output / 'timeline.nsys-rep'}; open it in Nsight Systems (nsys-ui)")
        return {"command": self.command, "code": code}


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
