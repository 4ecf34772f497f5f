"""Random traffic against naive decoding: how a case is run. Prints nothing; asserts."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace

import numpy as np

from ridgeline.core.types import End, Events, Plan
from tests.scheduler.cases import WINDOW_NS, Case
from tests.scripted import Launched, naive


class Trial:
    """One case, from the first arrival to the last end."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.now = 0
        self.seen: Counter[str] = Counter()
        self.streams: dict[int, list[int]] = {r.key: [] for r in case.requests}
        self.ends: dict[int, End] = {}
        self.coming = deque(case.requests)
        self.submitted: set[int] = set()
        self.salts = {id(request.prompt_ids): request.cache_salt for request in case.requests}
        self._start()

    def _start(self) -> None:
        self.scheduler, self.runner = self.case.scheduler(), self.case.runner()
        self.pending: deque[Launched] = deque()
        self.steps, self.rows = Counter[int](), Counter[int]()  # by key, since the start
        self.seat_salts: dict[int, str] = {}  # by slot, and of whom each block was taken for
        self.block_salts: dict[int, str] = {}

    def run(self) -> Counter[str]:
        crash_at = self.case.crash_at
        while len(self.ends) < len(self.case.requests):
            self._messages()
            if self._step():
                self.now += 1
            else:
                self._sleep()
            assert self.now < 3000, "endless"
            if crash_at is not None and self.now >= crash_at:
                crash_at = None
                self._crash()
        while self._step():
            pass
        self._verify()
        return self.seen

    def _messages(self) -> None:
        while self.coming and self.coming[0].arrival_ns <= self.now:
            request = self.coming.popleft()
            self.submitted.add(request.key)
            assert self.scheduler.submit(request) is None
        for key, when in self.case.aborts.items():
            if when <= self.now and key in self.submitted and key not in self.ends:
                end = self.scheduler.abort(key, self.now)
                assert end is not None
                self.seen["aborted"] += 1
                self._ended(end)
                self.scheduler.check()
                assert self.scheduler.abort(key, self.now) is None, "over already"

    def _step(self) -> bool:
        while len(self.pending) < self.case.depth:
            plan = self.scheduler.plan(self.now)
            self.scheduler.check()
            if plan is None:
                break
            self._look(plan)
            self.pending.append(self.runner.launch(plan))
        if not self.pending:
            return False
        launched = self.pending.popleft()
        events = self.scheduler.commit(self.runner.collect(launched), self.now)
        for key in events.keys.tolist():
            self.steps[key] += 1
            self.rows[key] += len(launched.plan.rows)
        self._sink(events)
        self.scheduler.check()
        return True

    def _look(self, plan: Plan) -> None:
        case, rows = self.case, plan.rows.tolist()
        assert 0 < len(rows) == len(set(rows)) <= plan.seats <= case.slots
        assert plan.counts.sum() <= case.budget
        assert 1 <= plan.horizon <= case.horizon
        if not case.policy.divisible:
            assert plan.seats <= case.max_batch
            assert not plan.joins or len(plan.joins) == len(rows) == self.scheduler.num_running, "nobody joins a batch"
        else:
            assert plan.seats == len(rows)
        self.seen["plans"] += 1
        self.seen["overlapped"] += bool(self.pending)
        self.seen["several iterations"] += plan.horizon > 1
        self.seen["no cache"] += not case.keeps
        whole = not (case.keeps and case.chunked and case.policy.divisible)
        assert not whole or (plan.promise > 0).all(), "a sequence that is computed whole reaches its end"
        self.seen["chunks"] += int((plan.promise == 0).any())
        self._look_at_salts(plan)

    def _look_at_salts(self, plan: Plan) -> None:
        """What is found was computed under the same salt, and not for somebody who wants the prompt's scores."""
        for join in plan.joins:
            salt = self.seat_salts[join.slot] = self.salts[id(join.prompt_ids)]
            assert {self.block_salts[block] for block in join.blocks} <= {salt}, "salts are kept apart"
            assert join.sampling.prompt_logprobs is None or not join.blocks
            self.seen["hits"] += bool(join.blocks)
            self.seen["salted hits"] += bool(join.blocks and salt)
        for slot, block in zip(plan.new_blocks[0].tolist(), plan.new_blocks[2].tolist(), strict=True):
            self.block_salts[block] = self.seat_salts[slot]

    def _sink(self, events: Events) -> None:
        assert len(events.keys) == len(events.counts)
        assert len(events.tokens) == events.counts.sum()
        tokens = iter(events.tokens.tolist())
        for key, count in zip(events.keys.tolist(), events.counts.tolist(), strict=True):
            assert key not in self.ends, "a token after the end"
            self.streams[key] += [next(tokens) for _ in range(count)]
        for end in events.ends:
            self._ended(end)

    def _ended(self, end: End) -> None:
        assert end.key not in self.ends, "two ends"
        self.ends[end.key] = end
        self.seen[end.reason] += 1
        self.seen["preempted"] += end.timings.preemptions > 0
        self._check_timings(end)

    def _check_timings(self, end: End) -> None:
        times, case = end.timings, self.case
        assert times.arrival_ns == case.requests[end.key].arrival_ns
        assert 0 <= times.held_ns <= WINDOW_NS
        assert (times.steps, times.rows) == (self.steps[end.key], self.rows[end.key])
        if end.reason != "abort":
            assert times.arrival_ns <= times.admitted_ns <= times.first_token_ns <= times.finished_ns == self.now
            assert (times.batch is None) == case.policy.divisible
        if times.batch is not None:
            batch = times.batch
            assert 1 <= batch.size <= case.max_batch
            assert batch.opened_ns <= batch.closed_ns
            assert 0 <= batch.padding <= batch.positions
            assert batch.kv_blocks <= case.num_blocks

    def _sleep(self) -> None:
        """Nothing to do: to the next thing that happens, without looking in between."""
        times = [request.arrival_ns for request in list(self.coming)[:1]]
        times += [when for key, when in self.case.aborts.items() if key not in self.ends]
        if self.scheduler.wake_ns is not None:
            assert self.scheduler.wake_ns > self.now, "a policy that polls"
            times.append(self.scheduler.wake_ns)
        idle = self.scheduler.num_waiting == self.scheduler.num_running == 0
        assert idle or self.scheduler.wake_ns is not None, "stuck"
        assert times or len(self.ends) == len(self.case.requests), "forgotten"
        self.now = min(times, default=self.now)

    def _crash(self) -> None:
        """Everything is lost but the tokens that were delivered; some ends are lost, too."""
        self.seen["dropped"] += self.scheduler.dropped_tokens > 0
        self.seen["crashed"] += 1
        self._start()
        for request in self.case.requests:
            if request.key not in self.submitted:
                continue
            again = replace(request, output_ids=np.array(self.streams[request.key], np.int32))
            old = self.ends.get(request.key)
            if old is None:
                assert self.scheduler.submit(again) is None
            elif old.reason != "abort":
                end = self.scheduler.submit(again)
                assert end is not None
                assert (end.key, end.reason) == (old.key, old.reason)

    def _verify(self) -> None:
        scheduler = self.scheduler
        self.seen["dropped"] += scheduler.dropped_tokens > 0
        assert scheduler.num_running == scheduler.num_waiting == scheduler.in_flight == 0
        assert scheduler.blocks_in_use == 0, "leak"
        for request in self.case.requests:
            key, stops = request.key, request.sampling.stop_ids
            want = naive(request.prompt_ids.tolist(), request.max_tokens, request.sampling)
            got = self.streams[key]
            if self.ends[key].reason == "abort":
                assert got == want[: len(got)]
            else:
                assert got == want, "exactly once, and equal to naive decoding"
                assert self.ends[key].reason == ("stop" if want[-1] in stops else "length")
