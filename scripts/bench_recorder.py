"""What the flight recorder costs: one engine, its recorder on and off in turn; and the recorder alone.

    python scripts/bench_recorder.py --rounds 11 --out records/RUN/run.json

A round is a batch of requests that decode together. Of every two steps one is recorded and one is not, by chance which
first, so that both see the same machine; a round's ratio is that of the median steps, and the figure is the median of
these. Neither HTTP nor a second process is in it. Alone: microseconds that a step's record takes to write, by rows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.build import EngineOrder, chosen, make_engine
from ridgeline.core.config import Config
from ridgeline.core.records import provenance, write_run
from ridgeline.core.types import NewRequest, Sampling, StepRecord
from ridgeline.engine.engine import Engine
from ridgeline.engine.recorder import Recorder
from ridgeline.hub import Access, choose

ALONE_STEPS = 20_000
WARM_STEPS = 4


def engine_for(arguments: argparse.Namespace) -> tuple[Engine, int]:
    config = Config.of(model=arguments.model, device=arguments.device, max_num_seqs=arguments.batch)
    found = choose(config.model, Access(offline=True))
    engine, info = make_engine(EngineOrder(config, found.name, found.weights, cache=arguments.cache), lambda *_: None)
    return engine, info.vocab


def batch(
    engine: Engine, prompts: list[list[int]], new: int, recorders: dict[str, Recorder], rng: np.random.Generator
) -> dict[str, list[int]]:
    """Nanoseconds of each step with each recorder, in turn, while all requests decode."""
    taken: dict[str, list[int]] = {name: [] for name in recorders}
    for key, prompt in enumerate(prompts):
        engine.submit(NewRequest(key, np.array(prompt, np.int32), new, Sampling(), time.perf_counter_ns()))
    first = True
    while engine.counters().waiting:
        engine.step()
    for number in range(new - WARM_STEPS):
        first = bool(rng.integers(2)) if number % 2 == 0 else not first
        name = "on" if first else "off"
        engine.sink = recorders[name]
        start = time.perf_counter_ns()
        events = engine.step()
        spent = time.perf_counter_ns() - start
        if events is not None and len(events.keys) == len(events.tokens) == len(prompts) and number >= WARM_STEPS:
            taken[name].append(spent)
    engine.discard()
    return taken


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    engine, vocab = engine_for(arguments)
    recorders: dict[str, Recorder] = {name: chosen("recorder", name).create() for name in ("on", "off")}
    rng, results = np.random.default_rng(arguments.seed), list[dict[str, Any]]()
    for number in range(arguments.rounds + 1):
        prompts = rng.integers(0, vocab, (arguments.batch, arguments.prompt)).tolist()
        taken = batch(engine, prompts, arguments.new, recorders, rng)
        if number == 0:  # it warms up
            continue
        for name, steps_ns in taken.items():
            results.append(
                {
                    "round": number,
                    "recorder": name,
                    "steps": len(steps_ns),
                    "step_us": statistics.median(steps_ns) / 1e3,
                }
            )
        on, off = (statistics.median(taken[name]) / 1e3 for name in ("on", "off"))
        print(f"round {number}: on {on:.1f}, off {off:.1f} us a step, {on / off - 1:+.2%}", flush=True)
    return results


def ratios(results: list[dict[str, Any]]) -> list[float]:
    """Time on to time off, round by round."""
    times = {(one["round"], one["recorder"]): one["step_us"] for one in results}
    return [times[number, "on"] / times[number, "off"] for number in sorted({number for number, _ in times})]


def alone(rows: int) -> float:
    """Microseconds that one step's record takes to write, the median of as many blocks of a thousand."""
    recorder: Recorder = chosen("recorder", "on").create()
    columns = [np.arange(rows), np.full(rows, 300), np.ones(rows, np.int64), np.ones(rows, np.int64), np.ones(rows)]
    step = StepRecord(1, 10**15, 10**15 + 1, rows, rows, rows, 0, 0, 100, 1, 0, *columns)
    blocks = list[float]()
    for _ in range(ALONE_STEPS // 1000):
        start = time.perf_counter_ns()
        for _ in range(1000):
            recorder.step(step)
        blocks.append((time.perf_counter_ns() - start) / 1e6)
    return statistics.median(blocks)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=11, help="default: 11")
    parser.add_argument("--batch", type=int, default=32, help="requests at once (default: 32)")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of a prompt (default: 32)")
    parser.add_argument("--new", type=int, default=192, help="new tokens of a request (default: 192)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="where compiled kernels are kept")
    parser.add_argument("--out", type=Path, help="write a run file")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    about = provenance(sys.argv)
    results = measure(arguments)
    values, sinks = ratios(results), {str(rows): alone(rows) for rows in (1, 32, 256, 1024)}
    print(f"time on / off: median {statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f})")
    print("alone, by rows:", ", ".join(f"{rows}: {us:.2f} us" for rows, us in sinks.items()))
    if arguments.out:
        config = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
        del config["out"], config["cache"]
        run = {"provenance": about, "config": config, "results": results, "ratios": values, "alone_us": sinks}
        write_run(arguments.out, run)


if __name__ == "__main__":
    main()
