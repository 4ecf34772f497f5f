"""How fast the runner alone is: tokens/s of hand-made plans, without scheduler, text or HTTP.

    python scripts/bench_step.py --shape gpt2 --dtype bfloat16 --batch 1 8 32 --context 64 --tokens 128

Sizes of batches take turns (A B C A B C ...), so that a drifting machine hits all of them; the median of the repeats
is printed, with the spread. Random weights: the tokens mean nothing and cost what real ones cost.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from ridgeline.attention.reference import Reference
from ridgeline.core.spec import GPT2_SHAPES, ModelSpec
from ridgeline.core.types import NO_BLOCKS, NO_TOKENS, Ints, Join, Plan, Sampling
from ridgeline.device.base import Device
from ridgeline.device.choose import choose
from ridgeline.models.gpt2_weights import random_gpt2
from ridgeline.models.linear import Dense
from ridgeline.runner.inputs import Ragged
from ridgeline.runner.runner import Runner
from ridgeline.runner.slots import Sizes

BLOCK = 16


def step(runner: Runner, starts: Ints, counts: Ints, joins: tuple[Join, ...] = ()) -> None:
    rows = np.arange(len(starts))
    plan = Plan(0, rows, starts, counts, np.ones_like(rows), joins, (), NO_BLOCKS, seats=len(rows))
    runner.collect(runner.launch(plan))


def run(runner: Runner, batch: int, context: int, tokens: int, sampling: Sampling) -> tuple[float, float]:
    """One batch from prompts to last tokens. Returns (seconds of prefill, seconds of the decode steps)."""
    rng, limit = np.random.default_rng(0), context + tokens
    width = -(-limit // BLOCK)
    prompts = rng.integers(0, 1000, (batch, context)).astype(np.int32)
    joins = tuple(
        Join(row, prompts[row], NO_TOKENS, tuple(range(row * width, (row + 1) * width)), limit, sampling)
        for row in range(batch)
    )
    starts = np.zeros(batch, np.int64)
    begun = time.perf_counter()
    step(runner, starts, starts + context, joins)
    prefilled = time.perf_counter()
    for made in range(tokens - 1):
        step(runner, starts + context + made, np.ones_like(starts))
    ended = time.perf_counter()
    runner.launch(_leave(batch))
    return prefilled - begun, ended - prefilled


def _leave(batch: int) -> Plan:
    """Everybody leaves; one idle row, because a launch has at least one."""
    one = np.zeros(1, np.int64)
    return Plan(0, one, one, one + 1, one, (), tuple(range(batch)), NO_BLOCKS, seats=1)


def make_runner(spec: ModelSpec, device: Device, batch: int, limit: int) -> Runner:
    scheme = Dense.of(device, None)
    sizes = Sizes(slots=batch, max_len=limit, num_blocks=batch * -(-limit // BLOCK), block_size=BLOCK)
    return Runner(random_gpt2(spec, 0, scheme, device), Reference(), Ragged(), device, sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(GPT2_SHAPES), default="gpt2")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--context", type=int, default=64, help="prompt tokens")
    parser.add_argument("--tokens", type=int, default=128, help="new tokens")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    args = parser.parse_args()
    device = choose(args.device, args.dtype)
    begun = time.perf_counter()
    runner = make_runner(GPT2_SHAPES[args.shape], device, max(args.batch), args.context + args.tokens)
    made = time.perf_counter()
    runner.warm_up()
    print(f"{args.shape}, {device.dtype} on {device.name}; weights in {made - begun:.2f} s, ", end="")
    print(f"warm-up {time.perf_counter() - made:.2f} s")
    sampling = Sampling(temperature=args.temperature, top_p=args.top_p)
    seconds: dict[int, list[tuple[float, float]]] = {batch: [] for batch in args.batch}
    for _ in range(args.repeats):
        for batch in args.batch:
            seconds[batch].append(run(runner, batch, args.context, args.tokens, sampling))
    print(f"{args.context} tokens in, {args.tokens} out, {args.repeats} repeats, median (lowest - highest):")
    for batch, runs in seconds.items():
        whole = sorted(batch * args.tokens / sum(both) for both in runs)
        step_ms = 1e3 * statistics.median(decode for _, decode in runs) / (args.tokens - 1)
        prefill = batch * args.context / statistics.median(prefill for prefill, _ in runs)
        print(
            f"  batch {batch:3}: {statistics.median(whole):8.1f} tokens/s ({whole[0]:.1f} - {whole[-1]:.1f}), "
            f"decode step {step_ms:.2f} ms, prefill {prefill:.0f} tokens/s"
        )


if __name__ == "__main__":
    main()
