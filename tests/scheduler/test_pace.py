"""Pace: streams keep theirs while prompts are computed beside them. The device's steps take what a StepTime says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ridgeline.core.cost import Formats
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.core.steptime import StepTime, TimedSteps
from ridgeline.core.types import Plan
from ridgeline.scheduler.pace import Pace, Paced, Unpaced
from ridgeline.scheduler.policies import Continuous, Policy, PrefillFirst
from tests.scheduler.stage import Stage

MS = 1_000_000
DEVICE = StepTime(fixed_ns=8 * MS, position_ns=MS // 4, read_ns=2500)
"""As GPT-2 124M with 8-bit weights on two cores, about."""
GOAL = 50 * MS


def takes(plan: Plan) -> int:
    decoding = (plan.counts == 1) & (plan.starts > 0)
    context = int((plan.starts[decoding] + 1).sum())
    return int(DEVICE.ns(int(plan.counts.sum()), context))


def stage(pace: Pace, policy: Policy | None = None, budget: int = 512, slower: float = 1) -> Stage:
    made = Stage(
        policy or Continuous(), slots=16, max_len=1024, num_blocks=1024, block_size=16, budget=budget,
        step_ns=lambda plan: int(slower * takes(plan)),
    )  # fmt: skip
    made.scheduler.keep(pace)
    return made


def gaps_ms(on: Stage, key: int, steps: int) -> list[float]:
    """Times between the tokens of one stream."""
    seen: list[float] = []
    last = on.now
    for _ in range(steps):
        before = len(on.tokens[key])
        on.step()
        if len(on.tokens[key]) > before:
            seen.append((on.now - last) / MS)
            last = on.now
    return seen


def streaming(on: Stage, streams: int = 8) -> int:
    keys = [on.submit(prompt=64, new=200) for _ in range(streams)]
    while not all(on.tokens[key] for key in keys):
        on.step()
    return keys[0]


@pytest.mark.parametrize(("pace", "longest"), [(Paced(GOAL, DEVICE), 50.0), (Unpaced(), 140.0)])
def test_streams_keep_their_pace_while_prompts_arrive(pace: Pace, longest: float) -> None:
    on = stage(pace)
    first = streaming(on)
    for _ in range(4):
        on.submit(prompt=512, new=2)
    seen = gaps_ms(on, first, 40)
    assert max(seen) <= longest
    assert max(seen) > 0.9 * longest, "the goal is used, or prompts would wait for nothing"


@pytest.mark.parametrize("slower", [0.7, 1.6])
def test_a_device_that_is_not_what_it_was_at_the_start_keeps_the_pace_too(slower: float) -> None:
    on = stage(Paced(GOAL, DEVICE), slower=slower)
    first = streaming(on)
    for _ in range(6):
        on.submit(prompt=512, new=2)
    for _ in range(12):
        on.step()
    assert 45 <= max(gaps_ms(on, first, 12)) <= 55


def test_a_step_that_something_held_up_is_forgotten() -> None:
    pace = Paced(GOAL, DEVICE)
    before = pace.room(8, 2048)
    expected = pace.expects(100, 2048)
    pace.took(expected, 100 * int(expected))
    assert pace.room(8, 2048) < before
    for _ in range(12):
        pace.took(expected, int(expected))
    assert pace.room(8, 2048) > 0.9 * before


def test_prompts_alone_have_the_whole_budget() -> None:
    on = stage(Paced(GOAL, DEVICE))
    for _ in range(2):
        on.submit(prompt=512, new=4)
    plan = on.step()
    assert plan is not None
    assert plan.counts.tolist() == [512]


def test_throughput_does_not_collapse() -> None:
    """The same requests, with and without the goal: what a step costs by itself is paid more often, and no more."""
    took = []
    for pace in (Paced(GOAL, DEVICE), Unpaced()):
        on = stage(pace)
        for _ in range(48):
            on.submit(prompt=200, new=60)
        on.run()
        took.append(on.now)
    assert took[0] < 1.1 * took[1]


@pytest.mark.parametrize("goal_ms", [0.001, 5, 20])
def test_no_prompt_starves_where_decoding_alone_misses_the_goal(goal_ms: float) -> None:
    """Then prompts have half of the time."""
    on = stage(Paced(goal_ms * MS, DEVICE))
    first = streaming(on, streams=15)
    late = on.submit(prompt=600, new=2)
    alone = DEVICE.ns(15, 15 * 128) / MS
    assert max(gaps_ms(on, first, 20)) < 2 * alone
    while late not in on.ends:
        on.step()
    assert len(on.tokens[first]) < 200, "it waited for nobody's end"


def test_the_budget_of_a_step_is_never_exceeded() -> None:
    on = stage(Paced(10_000 * MS, DEVICE), budget=96)
    streaming(on)
    on.submit(prompt=512, new=2)
    for _ in range(8):
        on.step()
    assert max(int(plan.counts.sum()) for plan in on.plans) == 96


def test_prompts_that_come_first_by_policy_are_not_cut_for_those_who_wait() -> None:
    on = stage(Paced(GOAL, DEVICE), PrefillFirst())
    streaming(on)
    on.submit(prompt=512, new=2)
    plan = on.step()
    assert plan is not None
    assert plan.counts.tolist() == [512]


def test_more_streams_leave_less_room() -> None:
    pace = Paced(GOAL, DEVICE)
    rooms = [pace.room(rows, rows * 300) for rows in (1, 4, 8, 12)]
    assert rooms == sorted(rooms, reverse=True)
    assert len(set(rooms)) == 4


INT8 = Formats(weight_bits=8, kv_bits=16, activation_bits=16, compute="bfloat16")


def test_a_step_time_gives_back_the_steps_that_it_was_fitted_to() -> None:
    """And a cache that is read costs what its bytes do at the speed of the weights."""
    spec = GPT2_SHAPES["gpt2"]
    timed = TimedSteps(prompt_tokens=64, prompt_ns=22 * MS, decode_ns=8 * MS)
    step = StepTime.fitted(spec, INT8, context=64, timed=timed)
    assert step.ns(1, 0) == pytest.approx(8 * MS)
    assert step.ns(64, 0) == pytest.approx(22 * MS, rel=0.05)
    bytes_per_s = spec.parameters / 8e-3
    assert step.read_ns == pytest.approx(spec.kv_bytes_per_token(2) / bytes_per_s * 1e9, rel=0.05)
    later = StepTime.fitted(spec, INT8, context=512, timed=timed)
    assert later.position_ns > step.position_ns, "a position attends more of a longer prompt"


def test_a_prompt_that_costs_nothing_to_be_seen_is_not_cut() -> None:
    timed = TimedSteps(prompt_tokens=64, prompt_ns=7 * MS, decode_ns=8 * MS)
    step = StepTime.fitted(GPT2_SHAPES["gpt2"], INT8, context=512, timed=timed)
    assert dataclasses.astuple(step)[1] == 0
    assert Paced(GOAL, step).room(8, 4096) > 1_000_000


def test_tokens_are_the_same_at_any_pace() -> None:
    made = []
    for pace in (Paced(GOAL, DEVICE), Paced(0.001, DEVICE), Unpaced()):
        on = stage(pace)
        rng = np.random.default_rng(3)
        for size in rng.integers(1, 400, 20).tolist():
            on.submit(prompt=size, new=12)
        on.run()
        made.append(on.tokens)
    assert made[0] == made[1] == made[2]
