"""Host cost of a steady launch: what the runner does beside the device's work, with a device that takes no time.

    python scripts/bench_launch.py [--repeats 5] [--horizon 1]

Launch and collect of a decode step whose rows are those of the step before, at batch 16 and at 1024. `same`: nothing
changes; `blocks`: a sixteenth of the rows takes a block with each token, as with blocks of 16 tokens. Replays
do nothing, so a figure holds everything but the launch of the graph itself. `packed`: the same step packed on the host,
launched operation after operation and computed, by a model of one layer of 16 values: mostly host, but not only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from ridgeline.attention.reference import Reference
from ridgeline.core.spec import ModelSpec
from ridgeline.core.types import NO_BLOCKS, NO_TOKENS, Ints, Join, Plan, Sampling
from ridgeline.device.cpu import CpuDevice
from ridgeline.models.gpt2_weights import random_gpt2
from ridgeline.models.linear import Dense
from ridgeline.ops.linear import linear_kernel
from ridgeline.runner.graphs import Graphs, NoGraphs
from ridgeline.runner.inputs import Ragged
from ridgeline.runner.runner import Runner
from ridgeline.runner.slots import Sizes

BLOCK, LENGTH = 16, 256
SPEC = ModelSpec(layers=1, d_model=16, heads=1, d_inner=16, vocab=64, max_positions=LENGTH)
STEPS = 50


class Instant(CpuDevice):
    """Whatever is captured takes no time, and does nothing."""

    def capture(self, fn: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002
        return lambda: None


class Bench:
    def __init__(self, batch: int, horizon: int, *, graphs: bool) -> None:
        device = Instant(torch.float32, threads=1)
        model = random_gpt2(SPEC, 0, Dense(linear_kernel(device), device.compute), device)
        sizes = Sizes(batch, LENGTH, batch * LENGTH // BLOCK, BLOCK)
        self.runner = Runner(model, Reference(), Ragged(), device, sizes, graphs=Graphs if graphs else NoGraphs)
        self.batch, self.horizon, self.start = batch, horizon, 1
        while self.runner.idle():
            pass
        rows, width = np.arange(batch), LENGTH // BLOCK
        joins = tuple(
            Join(row, np.ones(1, np.int32), NO_TOKENS, tuple(range(row * width, (row + 1) * width)), LENGTH, Sampling())
            for row in range(batch)
        )
        plan = Plan(0, rows, rows * 0, rows * 0 + 1, rows * 0 + 1, joins, (), NO_BLOCKS, seats=batch)
        self.runner.collect(self.runner.launch(plan))
        owners = np.arange(0, batch, 16)
        self.blocks = owners, owners * 0, owners * width  # the block that a row has there anyway

    def step_us(self, blocks: tuple[Ints, Ints, Ints]) -> float:
        ones = np.ones(self.batch, np.int64)
        rows, starts = np.arange(self.batch), self.start * ones
        plan = Plan(0, rows, starts, ones, self.horizon * ones, (), (), blocks, self.batch, self.horizon)
        begun = time.perf_counter()
        self.runner.collect(self.runner.launch(plan))
        return (time.perf_counter() - begun) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help=f"of {STEPS} steps of each kind, in turns")
    parser.add_argument("--horizon", type=int, default=1, help="decode iterations of a launch")
    args = parser.parse_args()
    small, large = (Bench(batch, args.horizon, graphs=True) for batch in (16, 1024))
    packed = [Bench(batch, 1, graphs=False) for batch in (16, 1024)]
    kinds: dict[str, Callable[[], float]] = {
        "same, batch 16": lambda: small.step_us(NO_BLOCKS),
        "same, batch 1024": lambda: large.step_us(NO_BLOCKS),
        "blocks, batch 16": lambda: small.step_us(small.blocks),
        "blocks, batch 1024": lambda: large.step_us(large.blocks),
        "packed, batch 16": lambda: packed[0].step_us(NO_BLOCKS),
        "packed, batch 1024": lambda: packed[1].step_us(NO_BLOCKS),
    }
    medians: dict[str, list[float]] = {name: [] for name in kinds}
    for repeat in range(args.repeats + 1):  # the first is a warm-up
        for name, step in kinds.items():
            median = statistics.median(step() for _ in range(STEPS))
            if repeat:
                medians[name].append(median)
    print(f"microseconds a launch, medians of {args.repeats} repeats (lowest to highest), horizon {args.horizon}")
    for name, found in medians.items():
        print(f"  {name}: {statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f})")


if __name__ == "__main__":
    main()
