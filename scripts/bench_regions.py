"""What it costs to time a step's regions, and what it costs to be able to: a step of four engines in turn.

    python scripts/bench_regions.py [--model demo] [--batch 32] [--rounds 9] [--steps 60] [--json FILE]

never: its model was never watched, which is what a build without regions runs. again: another such one; what it differs
by is chance. off: regions were timed and put back before. on: regions are timed now. In every round the engines are
fresh, their steps take turns (with the turn's first one changing), and a round gives one ratio of medians to `never`.
The models share their weights; what is wrapped is each one's own.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ridgeline.bench.duel import compare
from ridgeline.build import Loaded
from ridgeline.cli.laboratory import order_of
from ridgeline.core.config import Config
from ridgeline.core.records import provenance, write_run
from ridgeline.lab.rig import Rig, Workbench
from ridgeline.runner.regions import instrument, region_clock

ARMS = ("never", "again", "off", "on")
WARM_UP = 4
Step = Callable[[], None]


def twin(bench: Workbench) -> Workbench:
    """The same weights in another model, whose parts can be replaced without the first one seeing it."""
    model = copy.copy(bench.loaded.model)
    model.blocks = [copy.copy(block) for block in model.blocks]
    return dataclasses.replace(bench, loaded=Loaded(bench.loaded.device, model))


def watched(rig: Rig, one: Step, held: ExitStack) -> Step:
    clock = region_clock(rig.runner.device)
    held.enter_context(instrument(rig.runner, clock))

    def step() -> None:
        clock.begin()
        one()
        clock.end()

    return step


def started(arm: str, rig: Rig, held: ExitStack) -> Step:
    one = held.enter_context(rig.decoding())
    if arm == "off":
        with ExitStack() as before:
            watched(rig, one, before)()
        return one
    one()
    return watched(rig, one, held) if arm == "on" else one


def one_round(bench: Workbench, number: int, batch: int, context: int, steps: int) -> dict[str, float]:
    """The median step of each arm, in nanoseconds."""
    turned = [*ARMS[number % 4 :], *ARMS[: number % 4]]
    times: dict[str, list[int]] = {arm: [] for arm in ARMS}
    with ExitStack() as held:
        made = {arm: twin(bench).rig(batch, context, steps + WARM_UP + 1) for arm in turned}
        run = {arm: started(arm, made[arm], held) for arm in turned}
        for turn in range(WARM_UP + steps):
            for place in range(4):
                arm = ARMS[(turn + place) % 4]
                begun = time.perf_counter_ns()
                run[arm]()
                if turn >= WARM_UP:
                    times[arm].append(time.perf_counter_ns() - begun)
    return {arm: statistics.median(found) for arm, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="a model's name, or random:SHAPE for random weights")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9, help="at least 5")
    parser.add_argument("--steps", type=int, default=60, help="of each engine in a round")
    parser.add_argument("--json", type=Path, help="write a run file")
    args = parser.parse_args()
    about = provenance(sys.argv)
    kind, _, shape = args.model.partition(":")
    named = {"random_weights": shape} if kind == "random" else {"model": args.model}
    bench = Workbench.open(order_of(Config.from_mapping(named)), lambda *_: None)
    rounds = [one_round(bench, number, args.batch, args.context, args.steps) for number in range(args.rounds)]
    never = [found["never"] for found in rounds]
    print(f"{args.model}, batch {args.batch}, context {args.context}, {bench.loaded.device.name}")
    print(f"a step never watched: {statistics.median(never) / 1e6:.3f} ms, median of {args.rounds} rounds")
    for arm in ARMS[1:]:
        ratio = compare([found[arm] for found in rounds], never)
        low, middle, high = ((value - 1) * 100 for value in (ratio.low, ratio.ratio, ratio.high))
        print(f"  {arm:5} {middle:+6.2f} %  ({low:+.2f} % to {high:+.2f} %, {ratio.coverage * 100:.1f} % sure)")
    if args.json is not None:
        config = {name: value for name, value in vars(args).items() if name != "json"}
        write_run(args.json, {"format": 1, "kind": "regions", "provenance": about, "config": config, "results": rounds})


if __name__ == "__main__":
    main()
