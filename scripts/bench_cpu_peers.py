"""Ours against other programs on a CPU: decode and prefill, in turn, with the same threads, paired by width of weights.

    python scripts/bench_cpu_peers.py --out run.json --threads 2 --batch 1 8 32 --context 256 --rounds 5 \\
      --side int8 ours int8 bfloat16 "ridgeline bench step --random-weights gpt2 --device cpu --rounds 1" \\
      --side int8 llama.cpp Q8_0 float16 "llama/bin/python llamacpp_bench.py gpt2-q8_0.gguf" \\
      --side int8 OpenVINO int8 u8 "ov/bin/python openvino_bench.py ov-int8"

A round runs every cell (type x context x batch; prefill goes with the first) on all sides before the next cell, each in
a process of its own, and who begins changes from round to round (A B C, B C A, ...). A side is any program that takes
--threads, --batch, --context, --steps and --prefill and prints JSON lines with `what` (decode or prefill), `batch`,
`context` or `tokens`, `threads` and `tokens_per_s`; one of each type is called `ours`. Absolute figures of a shared
machine move by half within a morning, so the result is the median of the rounds' ratios, ours over the better peer
(that with the higher median in the cell), with the interval of the sign test.

--out is written after every process. The same command with the same --out goes on where it was cut: a cell of a round
that lacks a side is measured again on all sides, because a pair must be of one time.

Setting the peers up, each in an environment of its own:

    python -m venv llama && llama/bin/pip install gguf numpy llama-cpp-python     (compiles for this CPU: minutes)
        (`Illegal instruction` with Q8_0 or Q4_0 on a CPU with AMX: GCC 12 drops the stores before _tile_loadconfig, of
        which it believes 8 bytes are read: `asm volatile("" :: "r"(&tc) : "memory");` before it in amx/mmq.cpp helps)
        a GGUF file of GPT-2's shape for each type: Q8_0 beside our int8, Q4_0 beside 4 bits, BF16 beside bfloat16
    python -m venv ov && ov/bin/pip install openvino-genai numpy
    python -m venv export && export/bin/pip install "optimum-intel[openvino]"     (install a CPU build of torch first)
    export/bin/pip uninstall torchvision      (if `operator torchvision::nms does not exist`)
    export/bin/optimum-cli export openvino --model FOLDER --task text-generation-with-past --weight-format int8 ov-int8
        FOLDER: a GPT-2 as transformers saves it; --weight-format int4 for 4 bits

Random weights of the same shape serve: speed does not depend on them. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ridgeline.bench.order import LEAST_ROUNDS
from ridgeline.core.records import provenance, write_run
from ridgeline.lab.pairing import OURS, Run, cell, printed, rates, said, table

KIND, FORMAT = "bench cpu peers", 1


@dataclass(frozen=True, slots=True)
class Side:
    """A program. kind: the type that it is paired under. weights, kv: widths, in words for the reader."""

    kind: str
    name: str
    weights: str
    kv: str
    command: str


@dataclass(frozen=True, slots=True)
class Task:
    """What one process measures. prefill: tokens of a prompt; 0: none."""

    kind: str
    batch: int
    context: int
    prefill: int


@dataclass(frozen=True, slots=True)
class Asked:
    """rounds is not a part of what is measured: a file may be continued with more."""

    sides: tuple[Side, ...]
    threads: int
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    steps: int
    prefill: int

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(side.kind for side in self.sides))

    def of(self, kind: str) -> list[Side]:
        return [side for side in self.sides if side.kind == kind]

    @property
    def widths(self) -> dict[tuple[str, str], dict[str, str]]:
        return {(side.kind, side.name): {"weights": side.weights, "kv": side.kv} for side in self.sides}

    def tasks(self) -> Iterator[Task]:
        for kind in self.kinds:
            first = self.prefill
            for context in self.contexts:
                for batch in self.batches:
                    yield Task(kind, batch, context, first)
                    first = 0

    def config(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


def rotated(sides: Sequence[Side], turn: int) -> list[Side]:
    at = turn % len(sides)
    return [*sides[at:], *sides[:at]]


def measured(side: Side, task: Task, asked: Asked, timeout_s: float) -> tuple[list[Any], str | None]:
    """(the lines of a process, what went wrong)."""
    sizes = {"threads": asked.threads, "batch": task.batch, "context": task.context, "steps": asked.steps}
    flags = [part for name, value in (sizes | {"prefill": task.prefill}).items() for part in (f"--{name}", str(value))]
    try:
        process = subprocess.Popen(
            [*shlex.split(side.command), *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return [], f"{error.filename}: {error.strerror}"
    with process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return [], f"not done after {timeout_s:g} s"
        finally:
            if process.poll() is None:  # too slow, or Ctrl-C
                os.killpg(process.pid, signal.SIGKILL)  # its children too
    if process.returncode:
        return [], f"exit code {process.returncode}: {' '.join(err.split())[-300:]}"
    return checked(out, task, asked.threads)


def checked(out: str, task: Task, threads: int) -> tuple[list[Any], str | None]:
    """Every line that was asked for must be there, of so many threads, and of a rate above 0."""
    lines = []
    for text in out.splitlines():
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict) and "what" in line:
                lines.append(line)
    wanted = [("decode", task.batch, task.context)] + ([("prefill", None, task.prefill)] if task.prefill else [])
    found = {cell(line): line for line in lines}
    for one in wanted:
        line = found.get(one)
        if line is None:
            return lines, f"no line for {said(one)}"
        if line.get("threads") != threads or not line.get("tokens_per_s", 0) > 0:
            return lines, f"{said(one)}: {line.get('threads')} threads, {line.get('tokens_per_s')} tokens/s"
    return [found[one] for one in wanted], None


def whole_turns(runs: Sequence[Run], asked: Asked) -> tuple[list[Run], list[Run]]:
    """(those of a round's cells that have every side, the others)."""
    turns: dict[Any, list[Run]] = {}
    for run in runs:
        turns.setdefault((run["round"], run["kind"], run["batch"], run["context"]), []).append(run)
    kept: list[Run] = []
    left: list[Run] = []
    for (_, kind, *_), group in turns.items():
        good = [run for run in group if run["error"] is None]
        (kept if len(good) == len(asked.of(kind)) else left).extend(group)
    return kept, left


@contextlib.contextmanager
def alone(lock: Path | None) -> Iterator[None]:
    """Hold a file's lock while a round's cell is measured, where others of this machine respect it."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Book:
    """The run file, written after every process."""

    def __init__(self, path: Path, asked: Asked) -> None:
        self.path, self.asked = path, asked
        self.about: list[Any] = []
        self.runs: list[Run] = []
        self.left: list[Run] = []
        if path.exists():
            self._resume(json.loads(path.read_text(encoding="utf-8")))
        self.about.append(provenance(sys.argv))

    def _resume(self, document: dict[str, Any]) -> None:
        if document.get("kind") != KIND or document.get("config") != self.asked.config():
            sys.exit(f"{self.path} is of something else; take the options that it was begun with, or another --out")
        self.about = [document["provenance"], *document["continued"]]
        self.runs, cut = whole_turns(document["runs"], self.asked)
        self.left = [*document["left_out"], *cut]

    def has(self, turn: int, task: Task) -> bool:
        wanted = (turn, task.kind, task.batch, task.context)
        return any((run["round"], run["kind"], run["batch"], run["context"]) == wanted for run in self.runs)

    def add(self, run: Run) -> None:
        self.runs.append(run)
        self.write()

    def write(self) -> None:
        first, *continued = self.about
        samples = {
            name: {f"{side} tokens/s": list(values.values()) for side, values in by_side.items()}
            for name, by_side in rates(self.runs).items()
        }
        document = {"format": FORMAT, "kind": KIND, "provenance": first, "continued": continued}
        document |= {"config": self.asked.config(), "results": table(self.runs, self.asked.widths), "samples": samples}
        write_run(self.path, document | {"runs": self.runs, "left_out": self.left})


def turn_of(book: Book, turn: int, task: Task, timeout_s: float) -> None:
    """One cell of one round, on every side."""
    for place, side in enumerate(rotated(book.asked.of(task.kind), turn)):
        began, started = time.time(), time.perf_counter()
        lines, error = measured(side, task, book.asked, timeout_s)
        spent = time.perf_counter() - started
        book.add(
            {
                "round": turn, "kind": task.kind, "batch": task.batch, "context": task.context, "side": side.name,
                "place": place, "began_unix_s": began, "seconds": spent, "lines": lines, "error": error,
            }
        )  # fmt: skip
        told = error or ", ".join(f"{said(cell(line))} {line['tokens_per_s']}" for line in lines)
        print(f"round {turn + 1} {task.kind} {side.name}: {told} ({spent:.1f} s)", file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--side", nargs=5, action="append", required=True, metavar=("TYPE", "NAME", "WEIGHTS", "KV", "COMMAND"),
        help="a program: what it is paired under, its name, widths of weights and KV in words, its command line",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="the run file; an unfinished one is continued")
    parser.add_argument("--threads", type=int, required=True, help="of every side")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--context", type=int, nargs="+", default=[256])
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--prefill", type=int, default=512, help="tokens of a prompt; 0: none")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--timeout-s", type=float, default=180.0, help="of one process; then it is ended and left out")
    parser.add_argument("--lock", type=Path, help="a file whose lock (flock) is held while a cell is measured")
    arguments = parser.parse_args()
    if arguments.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds {arguments.rounds}: too few to tell a difference from chance; at least {LEAST_ROUNDS}")
    names = [tuple(side[:2]) for side in arguments.side]
    for kind in dict.fromkeys(side[0] for side in arguments.side):
        if len(set(names)) < len(names) or (kind, OURS) not in names or sum(k == kind for k, _ in names) < 2:
            parser.error(f"--side {kind}: give one called `{OURS}` and one peer or more, each by a name of its own")
    return arguments


def main() -> None:
    given = parse()
    asked = Asked(
        tuple(Side(*side) for side in given.side), given.threads, tuple(given.batch), tuple(given.context), given.steps,
        given.prefill,
    )  # fmt: skip
    book = Book(given.out, asked)
    for turn in range(given.rounds):
        for task in asked.tasks():
            if not book.has(turn, task):
                with alone(given.lock):
                    turn_of(book, turn, task, given.timeout_s)
    book.write()
    print("\n".join(printed(table(book.runs, asked.widths))))
    failed = dict.fromkeys((run["side"], run["error"]) for run in book.runs if run["error"] is not None)
    for side, error in failed:
        print(f"left out: {side}: {error}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # the same command goes on
        sys.exit(130)
