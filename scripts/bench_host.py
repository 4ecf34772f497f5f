"""Host cost of the logic tower alone: scheduler, ledger and encoded events, with a device that takes no time.

    python scripts/bench_host.py [--repeats 5] [--json]

Two figures, both with one launch in flight; submit, plan, null runner, commit and encode are counted.
Turnover: microseconds a token at batch 256 while somebody always waits (128-token prompts, 64 to 192 tokens out, blocks
of 16), so joins, leaves and blocks are in it; the first filling of the batch is not.
Steady: microseconds a step at batch 16 and at 1024 while nobody joins or leaves and a sixteenth of the rows takes a
block with each token.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from dataclasses import dataclass

import numpy as np

from ridgeline.core.types import Events, NewRequest, Output, Plan, Sampling
from ridgeline.engine.messages import Counters, encode_events
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.prefix import NoPrefix
from ridgeline.scheduler.policies import Continuous
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits

BLOCK_SIZE = 16


class NullRunner:
    """Makes what was promised, at once: token 0, never a stop id."""

    def __init__(self, slots: int, horizon: int) -> None:
        self._tokens = np.zeros(slots * horizon, np.int32)
        self._finished = np.zeros(slots, np.bool_)

    def step(self, plan: Plan) -> Output:
        rows = len(plan.rows)
        tokens = self._tokens[: rows * plan.horizon].reshape(rows, plan.horizon)
        return Output(plan.serial, plan.promise, tokens, self._finished[:rows], rows, 0)


@dataclass(frozen=True)
class Turnover:
    tokens: int
    steps: int
    us_per_token: float
    us_per_step: float


def scheduler_for(batch: int, max_len: int, horizon: int) -> Scheduler:
    blocks = batch * -(-max_len // BLOCK_SIZE)
    ledger = Ledger(slots=batch, max_len=max_len, num_blocks=blocks, block_size=BLOCK_SIZE, prefix=NoPrefix())
    limits = SchedulerLimits(slots=batch, max_len=max_len, budget=max(2048, batch * 8), horizon=horizon)
    return Scheduler(Continuous(), ledger, limits)


def step(scheduler: Scheduler, runner: NullRunner, sent: list[int]) -> Events | None:
    plan = scheduler.plan(time.monotonic_ns())
    if plan is None:
        return None
    events = scheduler.commit(runner.step(plan), time.monotonic_ns())
    counters = Counters(
        running=scheduler.num_running,
        waiting=scheduler.num_waiting,
        kv_blocks=scheduler.blocks_in_use,
        preemptions=scheduler.preemptions,
        dropped_tokens=scheduler.dropped_tokens,
    )
    sent.append(len(encode_events(events, counters)))
    return events


def turnover(batch: int, horizon: int, seed: int) -> Turnover:
    """From the moment when all slots are taken until nobody waits; an end makes room for the next of the queue."""
    rng = random.Random(seed)
    scheduler, runner = scheduler_for(batch, 512, horizon), NullRunner(batch, horizon)
    requests = iter(
        [
            NewRequest(key, np.zeros(128, np.int32), rng.randint(64, 192), Sampling(), arrival_ns=0)
            for key in range(batch * 8)
        ]
    )
    sent: list[int] = []
    for _ in range(batch * 2):
        scheduler.submit(next(requests))
    while scheduler.num_running < batch:
        step(scheduler, runner, sent)
    tokens = steps = 0
    start = time.perf_counter()
    while scheduler.num_waiting:
        events = step(scheduler, runner, sent)
        assert events is not None
        steps, tokens = steps + 1, tokens + len(events.tokens)
        for _ in events.ends:
            if (request := next(requests, None)) is not None:
                scheduler.submit(request)
    spent = time.perf_counter() - start
    return Turnover(tokens, steps, spent / tokens * 1e6, spent / steps * 1e6)


def decoding(batch: int, horizon: int, seed: int) -> Scheduler:
    """A full batch past its prompts; lengths are spread over a block, so that blocks are taken evenly."""
    rng = random.Random(seed)
    scheduler, runner = scheduler_for(batch, 2048, horizon), NullRunner(batch, horizon)
    for key in range(batch):
        prompt = np.zeros(1 + rng.randrange(BLOCK_SIZE), np.int32)
        scheduler.submit(NewRequest(key, prompt, 2000, Sampling(), arrival_ns=0))
    while scheduler.num_waiting:
        step(scheduler, runner, [])
    return scheduler


def steady(batches: tuple[int, int], horizon: int, seed: int) -> tuple[float, float]:
    """Median microseconds a step of both batches, in turns of 20 steps, so that both see the same machine."""
    pair = [(decoding(batch, horizon, seed), NullRunner(batch, horizon)) for batch in batches]
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(max(1, 40 // horizon)):
        for (scheduler, runner), times in zip(pair, spent, strict=True):
            for _ in range(20):
                start = time.perf_counter()
                step(scheduler, runner, [])
                times.append(time.perf_counter() - start)
    return statistics.median(spent[0]) * 1e6, statistics.median(spent[1]) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each figure, interleaved (default: 5)")
    parser.add_argument("--batch", type=int, default=256, help="batch of the turnover figure (default: 256)")
    parser.add_argument("--horizon", type=int, default=1, help="decode iterations a launch at most (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the output lengths (default: 0)")
    parser.add_argument("--json", action="store_true", help="one JSON object a repeat instead of text")
    args = parser.parse_args()
    turns, small, large = [], [], []
    for repeat in range(args.repeats):
        turns.append(turnover(args.batch, args.horizon, args.seed))
        few, many = steady((16, 1024), args.horizon, args.seed)
        small.append(few)
        large.append(many)
        if args.json:
            record = {"repeat": repeat, "batch": args.batch, "horizon": args.horizon, "seed": args.seed}
            record |= {"tokens": turns[-1].tokens, "steps": turns[-1].steps, "us_per_token": turns[-1].us_per_token}
            record |= {"steady_16_us": small[-1], "steady_1024_us": large[-1]}
            print(json.dumps(record), flush=True)
    if args.json:
        return
    per_token = sorted(turn.us_per_token for turn in turns)
    ratios = sorted(b / a for a, b in zip(small, large, strict=True))
    print(f"medians of {args.repeats} repeats (lowest to highest), horizon {args.horizon}, one launch in flight")
    print(
        f"turnover, batch {args.batch}: {statistics.median(per_token):.3f} us a token "
        f"({per_token[0]:.3f} to {per_token[-1]:.3f}), "
        f"{statistics.median(turn.us_per_step for turn in turns):.0f} us a step, {turns[0].tokens} tokens"
    )
    print(
        f"steady step: batch 16 {statistics.median(small):.1f} us, batch 1024 {statistics.median(large):.1f} us, "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


if __name__ == "__main__":
    main()
