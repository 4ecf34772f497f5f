"""Who runs with whom, and when a batch starts: policies on a fake clock."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.core.errors import ConfigError
from ridgeline.scheduler.policies import Continuous, Dynamic, Gathered, OneAtATime, PrefillFirst, Static
from tests.scheduler.stage import Stage

WINDOW_NS = 50


def test_one_at_a_time_never_mixes() -> None:
    stage = Stage(OneAtATime())
    keys = [stage.submit(new=n) for n in (3, 1, 2)]
    stage.run()
    assert [len(plan.rows) for plan in stage.plans] == [1] * 6
    assert [stage.ends[key].timings.finished_ns for key in keys] == [30, 40, 60]
    assert {stage.batch(key).closed for key in keys} == {"ready"}


def test_continuous_fills_seats_while_others_run() -> None:
    stage = Stage(Continuous(), slots=2)
    stage.submit(new=1)
    stage.submit(new=4)
    stage.submit(new=2)
    stage.run()
    assert [len(plan.joins) for plan in stage.plans] == [2, 1, 0, 0]
    assert [plan.seats for plan in stage.plans] == [len(plan.rows) for plan in stage.plans] == [2, 2, 2, 1]
    assert all(end.timings.batch is None for end in stage.ends.values())


def test_continuous_cuts_a_long_prompt_to_the_budget() -> None:
    stage = Stage(Continuous(), slots=4, budget=8)
    short = stage.submit(prompt=3, new=5)
    stage.step()
    stage.submit(prompt=20, new=2)
    stage.run()
    assert [plan.counts.tolist() for plan in stage.plans] == [[3], [1, 7], [1, 7], [1, 6], [1, 1]]
    assert [plan.promise.tolist() for plan in stage.plans] == [[1], [1, 0], [1, 0], [1, 1], [1, 1]]
    assert stage.ends[short].timings.finished_ns == 50, "decoding went on beside the chunks"


def test_prefill_first_computes_whole_prompts_of_newcomers_before_anybody_decodes() -> None:
    stage = Stage(PrefillFirst(), slots=4, budget=8)
    first = stage.submit(prompt=3, new=3)
    stage.step()
    stage.submit(prompt=20, new=2)
    stage.run()
    assert [plan.counts.tolist() for plan in stage.plans] == [[3], [8], [8], [4], [1, 1], [1]]
    assert stage.ends[first].timings.finished_ns == 60, "it stalled for three steps"


def test_prefill_first_stalls_nobody_for_ever() -> None:
    stage = Stage(PrefillFirst(), slots=4)
    first = stage.submit(new=4)
    for _ in range(40):
        stage.submit(new=1)
        stage.step()
    assert stage.ends[first].timings.finished_ns == 10 * (1 + 3 * 9), "a token after eight launches of others"
    assert len(stage.ends) == 41, "everybody else is served all the while"


def test_prefill_first_lets_others_decode_while_nobody_can_be_seated() -> None:
    stage = Stage(PrefillFirst(), slots=1)
    keys = [stage.submit(new=2) for _ in range(2)]
    stage.run()
    assert [stage.ends[key].timings.finished_ns for key in keys] == [20, 40]


def test_gathered_seats_newcomers_together() -> None:
    stage = Stage(Gathered(part=2, patience=100), slots=4)
    stage.submit(new=9)
    stage.step()
    stage.submit(new=1)
    stage.step()
    assert [len(plan.joins) for plan in stage.plans] == [1, 0], "one of four seats is not half of them"
    stage.submit(new=1)
    stage.run()
    assert [len(plan.joins) for plan in stage.plans] == [1, 0, 2, *[0] * 6]


def test_gathered_holds_nobody_longer_than_its_patience_and_nobody_at_all_while_none_decodes() -> None:
    stage = Stage(Gathered(part=1, patience=3), slots=4)
    stage.submit(new=9)
    stage.step()
    assert [len(plan.joins) for plan in stage.plans] == [1], "nobody decoded whom it could have held up"
    stage.submit(new=1)
    stage.run()
    assert [len(plan.joins) for plan in stage.plans] == [1, 0, 0, 0, 1, 0, 0, 0, 0]


def test_gathered_gives_newcomers_the_launch_that_has_a_prompt_in_it_anyway() -> None:
    stage = Stage(Gathered(part=1, patience=100), slots=4, budget=8)
    stage.submit(prompt=12, new=3)
    stage.submit(prompt=2, new=1)
    stage.step()
    stage.submit(prompt=2, new=1)
    stage.run()
    assert [len(plan.joins) for plan in stage.plans][:2] == [1, 2]


def test_without_chunks_a_prompt_waits_for_a_step_that_has_room_for_all_of_it() -> None:
    stage = Stage(Continuous(), slots=4, budget=20, max_len=20, chunked=False)
    stage.submit(prompt=12, new=2)
    stage.submit(prompt=15, new=2)
    stage.run()
    assert [plan.counts.tolist() for plan in stage.plans] == [[12], [1, 15], [1]]


def test_static_takes_whoever_waits_and_waits_for_nobody() -> None:
    stage = Stage(Static(max_batch=3))
    alone = stage.submit(new=2)
    stage.step()
    late = [stage.submit(new=1) for _ in range(4)]
    stage.run()
    assert [len(plan.rows) for plan in stage.plans] == [1, 1, 3, 1]
    assert [stage.batch(key).serial for key in (alone, *late)] == [1, 2, 2, 2, 3]
    assert {stage.batch(key).closed for key in (alone, *late)} == {"ready"}
    assert all(end.timings.held_ns == 0 for end in stage.ends.values())


def test_a_batch_starts_when_the_window_of_its_oldest_closes() -> None:
    stage = Stage(Dynamic(WINDOW_NS, max_batch=4))
    stage.now = 100
    first = stage.submit()
    assert stage.step() is None
    assert stage.scheduler.wake_ns == 150
    stage.now = 120
    stage.submit()
    assert stage.step() is None
    assert stage.scheduler.wake_ns == 150, "a newcomer does not open the window again"
    stage.now = 149
    assert stage.step() is None
    stage.now = 150
    plan = stage.step()
    assert plan is not None
    assert len(plan.joins) == 2
    stage.run()
    assert stage.batch(first).closed == "window"


def test_a_full_batch_starts_at_once() -> None:
    stage = Stage(Dynamic(WINDOW_NS, max_batch=2))
    keys = [stage.submit() for _ in range(3)]
    plan = stage.step()
    assert plan is not None
    assert len(plan.joins) == 2
    stage.run()
    assert [stage.batch(key).closed for key in keys] == ["full", "full", "window"]
    assert [stage.batch(key).serial for key in keys] == [1, 1, 2]


def test_nobody_joins_a_running_batch_and_early_finishers_leave_their_seats() -> None:
    stage = Stage(Dynamic(WINDOW_NS, max_batch=3))
    for new in (1, 2, 4):
        stage.submit(new=new)
    stage.step()
    late = [stage.submit(new=1) for _ in range(3)]
    stage.run()
    assert [len(plan.rows) for plan in stage.plans] == [3, 2, 1, 1, 3]
    assert [plan.seats for plan in stage.plans] == [3, 3, 3, 3, 3]
    assert {stage.ends[key].timings.admitted_ns for key in late} == {40}


def test_after_a_batch_longer_than_the_window_the_next_starts_immediately() -> None:
    stage = Stage(Dynamic(WINDOW_NS, max_batch=2))
    stage.submit(new=9)
    stage.submit(new=9)
    stage.step()
    late = stage.submit(new=1)
    stage.run()
    times = stage.ends[late].timings
    assert (times.admitted_ns, times.held_ns) == (90, 0)
    assert stage.batch(late).closed == "window"


def test_a_batch_is_not_cut_by_slots_that_are_free() -> None:
    stage = Stage(Dynamic(WINDOW_NS, max_batch=8), slots=8, max_len=32, budget=8 * 32)
    keys = [stage.submit(prompt=28, new=4) for _ in range(8)]
    stage.run()
    assert stage.batch(keys[0]).size == 8
    assert stage.batch(keys[0]).closed == "full"


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    gaps=st.lists(st.sampled_from([0, 1, 5, 10, 30, 60, 200]), min_size=1, max_size=24),
    max_batch=st.integers(1, 8),
    new=st.lists(st.integers(1, 8), min_size=24, max_size=24),
)
def test_no_batch_with_a_free_engine_waits_over_the_window_and_none_is_too_large(
    gaps: list[int], max_batch: int, new: list[int]
) -> None:
    stage = Stage(Dynamic(WINDOW_NS, max_batch))
    coming = [(sum(gaps[: i + 1]), new[i]) for i in range(len(gaps))]
    while coming or stage.scheduler.num_waiting or stage.scheduler.num_running:
        while coming and coming[0][0] <= stage.now:
            arrival, tokens = coming.pop(0)
            stage.submit(new=tokens, at=arrival)
        if stage.step() is None:
            wake_ns = stage.scheduler.wake_ns
            stage.now = min([at for at, _ in coming[:1]] + ([] if wake_ns is None else [wake_ns]))
    finished: dict[int, int] = {0: 0}
    batches = {}
    for key, end in stage.ends.items():
        batch = stage.batch(key)
        batches[batch.serial] = batch
        finished[batch.serial] = max(finished.get(batch.serial, 0), end.timings.finished_ns)
        waited_ns = end.timings.admitted_ns - end.timings.arrival_ns
        assert 0 <= end.timings.held_ns <= min(WINDOW_NS, waited_ns)
    assert sorted(batches) == list(range(1, len(batches) + 1))
    for serial, batch in batches.items():
        assert batch.closed_ns <= max(batch.opened_ns + WINDOW_NS, finished[serial - 1])
        assert batch.size <= max_batch
        assert batch.size == max_batch or batch.closed == "window"
        assert batch.closed == "full" or batch.closed_ns >= batch.opened_ns + WINDOW_NS


@pytest.mark.parametrize(("window_ns", "max_batch"), [(-1, 4), (50, 0)])
def test_a_batch_that_can_never_start_is_refused(window_ns: int, max_batch: int) -> None:
    with pytest.raises(ConfigError, match="never"):
        Dynamic(window_ns, max_batch)
