"""Timing: what a prompt and a decode step take on this device, before anybody waits for one. Knows no cost."""

from __future__ import annotations

import time

import numpy as np

from ridgeline.core.steptime import TimedSteps
from ridgeline.core.types import NO_TOKENS, Join, Sampling
from ridgeline.runner.runner import WARM_UP_TOKENS, Runner, lone_plan

_ROUNDS = 3
"""The quickest counts: what else the machine does makes a step longer, never shorter."""


def time_steps(runner: Runner) -> TimedSteps | None:
    """In slot 0, after the warm-up and before the first plan. None where there is no room for two tokens and a third.

    On GPT-2 124M's shape it takes a tenth of a second with 8-bit weights.
    """
    sizes = runner.sizes
    room = min(sizes.max_len, sizes.num_blocks * sizes.block_size)
    tokens = min(WARM_UP_TOKENS, room - 2)
    if tokens < 2:
        return None
    blocks = tuple(range(-(-(tokens + 2) // sizes.block_size)))[: sizes.num_blocks]
    join = Join(0, np.zeros(tokens, np.int32), NO_TOKENS, blocks, tokens + 2, Sampling())
    prompt_ns, decode_ns = [], []
    for _ in range(_ROUNDS):
        prompt_ns.append(_timed(runner, 0, tokens, (join,)))
        decode_ns.append(_timed(runner, tokens, 1, ()))
        runner.vacate(0)
    return TimedSteps(tokens, min(prompt_ns), min(decode_ns))


def _timed(runner: Runner, start: int, count: int, joins: tuple[Join, ...]) -> int:
    begun = time.perf_counter_ns()
    runner.collect(runner.launch(lone_plan(start, count, joins, leaves=())))
    return time.perf_counter_ns() - begun
