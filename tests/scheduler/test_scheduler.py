"""What a user of the scheduler relies on: ends, timings, batch records, refusals, aborts, resuming, preemption."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ridgeline.core.errors import BadRequest, ConfigError
from ridgeline.core.types import BatchRecord, NewRequest, Sampling, Timings, WallParts
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.nocache import NoCache
from ridgeline.kv.prefix import HashPrefix, NoPrefix
from ridgeline.scheduler.policies import Continuous, Dynamic, OneAtATime, Policy
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits
from tests.scheduler.stage import Stage
from tests.scripted import naive


def request(prompt: int = 4, new: int = 3, **changes: object) -> NewRequest:
    made = NewRequest(0, np.zeros(prompt, np.int32), new, Sampling(), arrival_ns=0)
    return replace(made, **changes)  # type: ignore[arg-type]


# -- ends and tokens


def test_a_stop_id_ends_a_request_and_is_part_of_its_tokens() -> None:
    stage = Stage(Continuous())
    free = naive(range(4), 12, Sampling())
    stop = Sampling(stop_ids=(free[5],))
    key = stage.submit(new=12, sampling=stop)
    stage.run()
    assert stage.tokens[key] == naive(range(4), 12, stop) == free[: free.index(free[5]) + 1]
    assert stage.ends[key].reason == "stop"


def test_the_limit_ends_a_request() -> None:
    stage = Stage(Continuous())
    key = stage.submit(new=3)
    stage.run()
    assert stage.tokens[key] == naive(range(4), 3, Sampling())
    assert stage.ends[key].reason == "length"


def test_an_idle_scheduler_has_nothing_to_plan_and_nothing_to_wake_for() -> None:
    stage = Stage(Dynamic(50, 4))
    assert stage.step() is None
    assert stage.scheduler.wake_ns is None


# -- timings, by hand


def test_timings_of_a_request_alone() -> None:
    stage = Stage(Continuous(), step_ns=10)
    stage.now = 5
    key = stage.submit(new=3, at=2)
    stage.run()
    assert stage.ends[key].timings == Timings(
        arrival_ns=2,
        held_ns=0,
        admitted_ns=5,
        first_token_ns=15,
        finished_ns=35,
        steps=3,
        rows=3,
        preemptions=0,
        batch=None,
        parts=WallParts(queued_ns=3, prefill_ns=10, decode_ns=20),
        device_ns=30,
    )


def test_held_is_the_wait_for_the_window_while_nothing_runs() -> None:
    stage = Stage(Dynamic(50, max_batch=2), step_ns=10)
    first = stage.submit(new=4)  # at 0; the window opens
    assert stage.step() is None
    stage.now = 30
    second = stage.submit(new=1)  # fills the batch
    stage.step()  # 30 to 40
    third = stage.submit(new=1)  # at 40; the batch runs until 70, the window is over at 90
    stage.run()
    held = {key: stage.ends[key].timings.held_ns for key in (first, second, third)}
    assert held == {first: 30, second: 0, third: 20}
    times = stage.ends[third].timings
    assert (times.arrival_ns, times.admitted_ns, times.first_token_ns) == (40, 90, 100)


def test_rows_of_a_request_are_those_of_the_steps_it_was_in() -> None:
    stage = Stage(Continuous())
    long = stage.submit(new=4)
    stage.step()
    short = stage.submit(new=2)
    stage.run()
    assert (stage.ends[long].timings.steps, stage.ends[long].timings.rows) == (4, 6)
    assert (stage.ends[short].timings.steps, stage.ends[short].timings.rows) == (2, 4)


def test_a_batch_record_adds_up() -> None:
    stage = Stage(Dynamic(50, max_batch=2), block_size=4, step_ns=10)
    short = stage.submit(prompt=3, new=1, at=0)
    long = stage.submit(prompt=6, new=3, at=0)
    stage.run()
    first_step = BatchRecord(
        serial=1,
        size=2,
        closed="full",
        opened_ns=0,
        closed_ns=0,
        padded_length=6,
        steps=1,
        positions=12,  # two seats as long as the longer prompt
        padding=3,
        kv_blocks=3,
    )
    assert stage.batch(short) == first_step, "as far as it had come"
    assert stage.batch(long) == replace(first_step, steps=3, positions=16, padding=5)
    assert (stage.scheduler.positions, stage.scheduler.padding) == (16, 5)


# -- aborts


def test_an_abort_while_waiting_frees_the_place_in_the_queue() -> None:
    stage = Stage(Dynamic(50, max_batch=8))
    keys = [stage.submit() for _ in range(3)]
    stage.step()
    stage.now = 20
    end = stage.abort(keys[1])
    assert (end.reason, end.timings.held_ns, end.timings.admitted_ns, end.timings.first_token_ns) == ("abort", 20, 0, 0)
    stage.run()
    assert sorted(stage.ends) == [keys[0], keys[2]]


def test_an_abort_while_running_gives_the_blocks_back_at_once() -> None:
    stage = Stage(Continuous())
    key = stage.submit(new=8)
    stage.step()
    end = stage.abort(key)
    assert (end.timings.admitted_ns, end.timings.first_token_ns, end.timings.finished_ns) == (0, 10, 10)
    assert (stage.scheduler.num_running, stage.scheduler.blocks_in_use) == (0, 0)
    assert stage.scheduler.abort(key, 99) is None


def test_what_was_in_flight_for_an_aborted_request_is_dropped_and_counted() -> None:
    stage = Stage(Continuous())
    gone, kept = stage.submit(new=8), stage.submit(new=2)
    plan = stage.scheduler.plan(0)
    assert plan is not None
    stage.abort(gone)
    assert stage.scheduler.blocks_in_use == 2, "the launch may still write there"
    events = stage.scheduler.commit(stage.runner.collect(stage.runner.launch(plan)), 10)
    assert events.keys.tolist() == [kept]
    assert stage.scheduler.dropped_tokens == 1
    assert stage.scheduler.blocks_in_use == 1


def test_an_unknown_key_cannot_be_aborted() -> None:
    assert Stage(Continuous()).scheduler.abort(7, 0) is None


# -- preemption and resuming


def test_a_preempted_request_goes_on_where_it_was() -> None:
    stage = Stage(Continuous(), slots=2, num_blocks=6, block_size=2)
    keys = [stage.submit(prompt=4, new=7) for _ in range(2)]
    stage.run()
    assert stage.scheduler.preemptions == 1
    assert [stage.ends[key].timings.preemptions for key in keys] == [0, 1], "the latest gives way"
    assert all(stage.tokens[key] == naive(range(4), 7, Sampling()) for key in keys)
    victim = stage.ends[keys[1]].timings
    assert (victim.admitted_ns, victim.first_token_ns) == (0, 10), "the first admission and the first token"


def test_a_preempted_request_goes_before_those_who_wait() -> None:
    stage = Stage(Continuous(), slots=2, num_blocks=6, block_size=2)
    for _ in range(3):
        stage.submit(prompt=4, new=7)
    stage.run()
    assert stage.scheduler.preemptions >= 1
    admitted_again = [len(join.output_ids) > 0 for plan in stage.plans for join in plan.joins]
    assert admitted_again[:4] == [False, False, True, False]


def test_nobody_new_takes_the_blocks_that_a_running_row_lacks() -> None:
    limits = SchedulerLimits(slots=3, max_len=8, budget=16, spare=0)
    ledger = Ledger(slots=3, max_len=8, num_blocks=3, block_size=2, prefix=NoPrefix())
    scheduler = Scheduler(Continuous(), ledger, limits)
    for key in range(2):
        scheduler.submit(replace(request(prompt=2, new=4), key=key))
    assert scheduler.plan(0) is not None
    scheduler.submit(replace(request(prompt=1, new=1), key=2))
    plan = scheduler.plan(0)
    assert plan is not None
    assert (plan.rows.tolist(), plan.joins) == ([0], ()), "two rows lack a block each: the older has the last one"
    assert scheduler.num_waiting == 1


def test_rows_that_need_no_block_go_on_beside_one_that_lacks_it() -> None:
    """While a launch is in flight nobody gives up blocks."""
    limits = SchedulerLimits(slots=2, max_len=16, budget=16, spare=0)
    ledger = Ledger(slots=2, max_len=16, num_blocks=4, block_size=4, prefix=NoPrefix())
    scheduler = Scheduler(Continuous(), ledger, limits)
    scheduler.submit(replace(request(prompt=6, new=4), key=0))
    scheduler.submit(replace(request(prompt=8, new=4), key=1))
    rows = [plan.rows.tolist() for plan in iter(lambda: scheduler.plan(0), None)]
    assert rows == [[0, 1], [0], [0]]
    assert scheduler.preemptions == 0


def test_a_preempted_member_runs_in_the_next_batch() -> None:
    stage = Stage(Dynamic(50, max_batch=2), slots=2, num_blocks=6, block_size=2)
    keys = [stage.submit(prompt=4, new=7) for _ in range(2)]
    stage.run()
    assert [stage.batch(key).serial for key in keys] == [1, 2]
    assert [stage.batch(key).size for key in keys] == [2, 1]
    assert stage.plans[0].seats == 2
    assert stage.batch(keys[1]).padded_length > 4, "what it had made is computed again"
    assert all(stage.tokens[key] == naive(range(4), 7, Sampling()) for key in keys)


def test_a_request_resumes_after_its_output() -> None:
    stage = Stage(Continuous())
    done = naive(range(4), 6, Sampling())
    ids = np.arange(4, dtype=np.int32)
    stage.tokens[9] = []
    again = NewRequest(9, ids, 6, Sampling(), arrival_ns=0, output_ids=np.array(done[:2], np.int32))
    assert stage.scheduler.submit(again) is None
    stage.run()
    assert stage.tokens[9] == done[2:]
    assert stage.ends[9].timings.first_token_ns == 10


@pytest.mark.parametrize(("stop_ids", "reason"), [((), "length"), ((5,), "stop")])
def test_a_resumed_output_that_is_whole_ends_at_once(stop_ids: tuple[int, ...], reason: str) -> None:
    new = 3 if reason == "length" else 10
    resumed = request(new=new, sampling=Sampling(stop_ids=stop_ids), output_ids=np.array([1, 2, 5], np.int32))
    stage = Stage(Continuous())
    end = stage.scheduler.submit(resumed)
    assert end is not None
    assert (end.key, end.reason, end.timings.admitted_ns, end.timings.finished_ns) == (0, reason, 0, 0)
    assert stage.scheduler.num_waiting == 0


# -- the prefix cache


def test_a_prompt_that_was_computed_before_is_found_but_for_its_last_token() -> None:
    stage = Stage(Continuous(), prefix=HashPrefix(), block_size=4)
    for _ in range(2):
        key = stage.submit(prompt=10, new=2)
        stage.run()
    assert [plan.counts.tolist() for plan in stage.plans] == [[10], [1], [2], [1]]
    assert stage.ends[key].cached == 8
    assert (stage.scheduler.prefix_queried, stage.scheduler.prefix_hit) == (20, 8)
    assert stage.scheduler.blocks_in_use == 0, "what is only remembered is free"


@pytest.mark.parametrize(
    ("salt", "sampling", "queried"), [("other", Sampling(), 20), ("", Sampling(prompt_logprobs=0), 10)]
)
def test_another_salt_finds_nothing_and_who_wants_the_prompts_scores_does_not_look(
    salt: str, sampling: Sampling, queried: int
) -> None:
    stage = Stage(Continuous(), prefix=HashPrefix(), block_size=4)
    stage.submit(prompt=10, new=2)
    stage.run()
    key = stage.submit(prompt=10, new=2, salt=salt, sampling=sampling)
    stage.run()
    assert stage.ends[key].cached == 0
    assert (stage.scheduler.prefix_queried, stage.scheduler.prefix_hit) == (queried, 0)


# -- refusals


@pytest.mark.parametrize(
    ("bad", "param", "text"),
    [
        (request(prompt=0), "prompt", "at least one token"),
        (request(new=0), "max_tokens", "at least 1"),
        (request(prompt=30, new=3), "max_tokens", "33; the longest sequence here is 32"),
        (request(prompt=40, new=1), "prompt", "41; the longest sequence here is 32"),
        (request(prompt=20, new=10), "max_tokens", "30; what the KV cache can hold of one sequence is 25"),
    ],
)
def test_a_request_that_can_never_run_is_refused(bad: NewRequest, param: str, text: str) -> None:
    stage = Stage(Continuous(), num_blocks=6)
    with pytest.raises(BadRequest, match=text) as caught:
        stage.scheduler.submit(bad)
    assert caught.value.param == param
    stage.scheduler.check()
    assert stage.scheduler.num_waiting == 0


def test_the_longest_request_that_fits_runs() -> None:
    stage = Stage(Continuous(), num_blocks=6)
    key = stage.submit(prompt=20, new=5)
    stage.run()
    assert len(stage.tokens[key]) == 5


@pytest.mark.parametrize(
    ("policy", "limits", "text"),
    [
        (Continuous(), SchedulerLimits(slots=8, max_len=32, budget=7), "7 tokens is too small for 8 running"),
        (OneAtATime(), SchedulerLimits(slots=1, max_len=32, budget=31), "31 tokens is too small for a sequence of 32"),
        (Dynamic(5, 2), SchedulerLimits(slots=2, max_len=32, budget=31), "31 tokens is too small"),
        (Continuous(), SchedulerLimits(slots=0, max_len=32, budget=7), "0 slots"),
        (Continuous(), SchedulerLimits(slots=1, max_len=1, budget=7), "1 tokens"),
        (Continuous(), SchedulerLimits(slots=1, max_len=32, budget=7, horizon=0), "horizon 0"),
    ],
)
def test_limits_under_which_nobody_could_run_are_refused(policy: Policy, limits: SchedulerLimits, text: str) -> None:
    ledger = Ledger(slots=max(1, limits.slots), max_len=limits.max_len, num_blocks=64, block_size=4, prefix=NoPrefix())
    with pytest.raises(ConfigError, match=text):
        Scheduler(policy, ledger, limits)


def test_several_iterations_without_a_cache_are_refused() -> None:
    ledger = NoCache(slots=1, max_len=32, num_blocks=64, block_size=4, prefix=NoPrefix())
    with pytest.raises(ConfigError, match="horizon of 1, not 2"):
        Scheduler(Continuous(), ledger, SchedulerLimits(slots=1, max_len=32, budget=32, horizon=2))
