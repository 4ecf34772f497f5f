"""What scripts that run on a GPU share: cases with a clock, each group in a process of its own. Knows no kernel.

A group that hangs or breaks the device's context ends alone, after its timeout; a case that fails prints its error and
the next one runs. Kernels are compiled in a rehearsal, in which all groups run side by side and nobody looks at their
clocks; groups without a clock of their own are done with it. On a CPU (`--dry-run`) the same code runs with tiny sizes
and the host's clock, to prove that the script itself is sound; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ridgeline.core.records import provenance, write_run

Numbers = dict[str, Any]
Case = tuple[str, Callable[[], Numbers]]
T = TypeVar("T")

REPEATS = 25
MARK = "#case "
FLUSH_BYTES = 256 << 20  # several times the L2 of any Hopper


@dataclass(frozen=True)
class Bench:
    """gbs: bytes a nanosecond that the device reads from memory, measured before, that shares divide by; 0: unknown."""

    device: torch.device
    gbs: float
    repeats: int = REPEATS

    @property
    def dry(self) -> bool:
        return self.device.type == "cpu"

    def pick(self, real: T, tiny: T) -> T:
        """The size for a GPU, or the one for a dry run."""
        return tiny if self.dry else real

    @property
    def half(self) -> torch.dtype:
        """bfloat16; float16 in a dry run, because Triton's interpreter computes bfloat16 wrongly."""
        return self.pick(torch.bfloat16, torch.float16)

    def randn(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(size, device=self.device, dtype=torch.float32).to(dtype or self.half)

    def capture(self, run: Callable[[], object]) -> Callable[[], object]:
        """A graph's replay; `run` itself in a dry run."""
        if self.dry:
            return run
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run()
            run()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay

    def us(self, run: Callable[[], object], before: Callable[[], object] | None = None) -> list[float]:
        """Microseconds of each repeat, by the device's clock. before: runs ahead of each, outside of the time."""
        if self.dry:
            begun = time.perf_counter()
            run()
            return [(time.perf_counter() - begun) * 1e6]
        for _ in range(3):
            run()
        pairs = []
        for _ in range(self.repeats):
            if before is not None:
                before()
            pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            pair[0].record()
            run()
            pair[1].record()
            pairs.append(pair)
        torch.cuda.synchronize()
        return [start.elapsed_time(end) * 1e3 for start, end in pairs]

    def timed(
        self, run: Callable[[], object], *, moved: int = 0, flops: int = 0, of: int = 1, flush: bool = False
    ) -> Numbers:
        """Median, least and most of the time, divided by `of`; with the rate, if bytes or operations of one are told.
        flush: fill L2 with something else before each repeat, by reading: what is
        written has to leave it again, in the time of the repeat."""
        scratch = torch.zeros(FLUSH_BYTES // 4 if flush and not self.dry else 1, device=self.device)
        times = sorted(t / of for t in self.us(run, scratch.sum if flush else None))
        median = statistics.median(times)
        found: Numbers = {"us": round(median, 3), "least": round(times[0], 3), "most": round(times[-1], 3)}
        if moved:
            found["GB/s"] = round(moved / median / 1e3, 1)
            if self.gbs:
                found["of bandwidth"] = round(moved / median / 1e3 / self.gbs, 3)
        if flops:
            found["TFLOP/s"] = round(flops / median / 1e6, 2)
        return found


Group = Callable[[Bench], Iterator[Case]]


class Fastest:
    """Of the cases of one name."""

    def __init__(self) -> None:
        self._best: dict[str, tuple[str, Numbers]] = {}

    def of(self, what: str, about: str, case: Callable[[], Numbers]) -> Numbers:
        found = case()
        if what not in self._best or found["us"] < self._best[what][1]["us"]:
            self._best[what] = (about, found)
        return found

    def told(self, what: str) -> Numbers:
        about, found = self._best[what]
        return {"how": about} | found


def run_group(group: Group, bench: Bench) -> None:
    """Every case, a line each: text for people, and JSON for the parent."""
    cases = group(bench)
    while True:
        name, begun = "(setting up)", time.perf_counter()
        try:
            name, case = next(cases)
            found = case()
        except StopIteration:
            return
        except Exception as error:  # whatever it is, the next case shall run
            found = {"error": f"{type(error).__name__}: {error}".strip()[:400]}
        if not bench.dry:
            found["wall_s"] = round(time.perf_counter() - begun, 2)
        print(MARK + json.dumps({"name": name} | found), flush=True)
        if name == "(setting up)":
            return


def main(
    module: str, about: str, timed: Mapping[str, Group], untimed: Mapping[str, Group], rehearsed: Sequence[str],
    timeout_s: int = 100,
) -> None:  # fmt: skip
    """The command line of such a script: all groups, each in a process of its own, and one run file. rehearsed: those
    of the timed groups that compile something."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    groups = {**untimed, **timed}
    parser.add_argument("--dry-run", "--quick", action="store_true", help="on a CPU, with tiny sizes")
    parser.add_argument("--out", type=Path, help="the run file")
    parser.add_argument("--only", nargs="+", choices=list(groups), default=list(groups))
    parser.add_argument("--gbs", type=float, default=0.0, help="measured read bandwidth that shares divide by")
    parser.add_argument("--child", choices=list(groups), help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of each timed case")
    asked = parser.parse_args()
    if asked.child is not None:
        torch.manual_seed(0)
        where = torch.device("cpu" if asked.dry_run else "cuda")
        run_group(groups[asked.child], Bench(where, asked.gbs, asked.repeats))
        return
    flags = ["--dry-run"] if asked.dry_run else []
    children = Children([sys.executable, "-m", module, *flags], timeout_s)
    _run(asked, children, [n for n in untimed if n in asked.only], [n for n in timed if n in asked.only], rehearsed)


def _run(
    asked: argparse.Namespace, children: Children, untimed: list[str], timed: list[str], rehearsed: Sequence[str]
) -> None:
    results: list[dict[str, Any]] = []
    gbs, taken = asked.gbs, provenance(sys.argv)

    def keep(name: str, cases: list[Numbers]) -> None:
        """After each, because the next may be the last."""
        results.append({"group": name, "cases": cases})
        if asked.out is not None:
            config = {"dry_run": asked.dry_run, "repeats": asked.repeats, "bandwidth_gbs": gbs}
            write_run(asked.out, {"provenance": taken, "config": config, "results": results})

    checking = [(name, children.start(name)) for name in untimed]
    rehearsing = [(name, children.start(name, "--repeats", "1")) for name in timed if name in rehearsed]
    for name, child in checking:
        keep(name, child.cases())
    for _, child in rehearsing:
        child.ended()
    for name in timed:
        cases = children.start(name, "--repeats", str(asked.repeats), "--gbs", str(gbs)).cases()
        gbs = max([gbs, *(case.get("GB/s", 0.0) for case in cases if case["name"].startswith("read "))])
        keep(name, cases)
    _summary([case for group in results for case in group["cases"]])


def _summary(cases: list[Numbers]) -> None:
    """Last, because the end of an output is what people see: what failed, and what was named fastest."""
    bad = [case for case in cases if "error" in case or any(value is False for value in case.values())]
    print(f"== {len(cases)} cases, {len(bad)} wrong or failed")
    for case in (*bad, *(case for case in cases if case["name"].startswith("fastest"))):
        print(_text(case))


class Children:
    """Processes that run a group each."""

    def __init__(self, command: list[str], timeout_s: int) -> None:
        self._command, self._timeout_s = command, timeout_s

    def start(self, group: str, *flags: str) -> Child:
        return Child(group, [*self._command, "--child", group, *flags], self._timeout_s)


class Child:
    """One of them, and what it says. Its output goes to a file, so that it never waits for a reader."""

    def __init__(self, group: str, command: list[str], timeout_s: int) -> None:
        self._group, self._output = group, tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.STDOUT)
        self._watch = threading.Timer(timeout_s, self._process.kill)
        self._watch.start()

    def ended(self) -> int:
        code = self._process.wait()
        self._watch.cancel()
        return code

    def cases(self) -> list[Numbers]:
        """Waits for its end, and prints all of it."""
        code = self.ended()
        self._output.seek(0)
        print(f"-- {self._group}", flush=True)
        found: list[Numbers] = []
        for line in self._output:
            if line.startswith(MARK):
                found.append(json.loads(line.removeprefix(MARK)))
                print(_text(found[-1]))
            elif code:  # it broke, and may have said why
                print(line, end="")
        if code:
            found.append({"name": "(end)", "error": f"the process ended with {code}"})
            print(_text(found[-1]))
        sys.stdout.flush()
        return found


def _text(case: Numbers) -> str:
    return f"  {case['name']}: " + ", ".join(f"{key} {value}" for key, value in case.items() if key != "name")
