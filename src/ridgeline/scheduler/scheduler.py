"""Scheduler: who runs next. The one writer of slots and jobs; knows no tensor, text, socket or clock.

`plan` advances `ahead` and `computed` and reserves blocks; `commit` settles them and ends requests. Several plans may
be in flight. The rules this rests on, each found by a failing random run:
R1  Launches run, and are committed, in the order they were made.
R2  A row whose last token is promised has no work.
R3  A promise is a cap that the device obeys; a row that stops short of it is over.
R5  Preempt only when nothing is in flight: before, the victim's blocks would not be free.
R6  A victim was granted nothing in this plan.
R7  A row preempted in this plan has no claim left in it.
R8  Certainly computed is min(computed, length - 1), if every plan was launched; no block is published by the plan
    that computes it.
R10 Results belong to a seating (a request in a slot), not to a slot.
R11 A reference to a block ends when the newest plan made before its release has been collected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ridgeline.core.errors import BadRequest, ConfigError
from ridgeline.core.flight import ARRIVED, FIRST_TOKEN
from ridgeline.core.types import Bools, End, Events, FinishReason, NewRequest, Output, Plan, Scores, Timings
from ridgeline.kv.ledger import Ledger
from ridgeline.scheduler.job import OTHERS, Job
from ridgeline.scheduler.making import Flight
from ridgeline.scheduler.planner import Planner, SchedulerLimits
from ridgeline.scheduler.policies import Policy
from ridgeline.scheduler.queue import Fifo, Queue
from ridgeline.scheduler.slots import SlotTable
from ridgeline.scheduler.state import State

__all__ = ["Scheduler", "SchedulerLimits"]


class Scheduler:
    """submit and abort at any time; plan before a launch, commit after it is collected.

    dropped_tokens: made by the device for requests that were over by then. steps: launches committed; positions,
    padding: sums over their outputs. committed: the newest of these launches.
    """

    def __init__(self, policy: Policy, ledger: Ledger, limits: SchedulerLimits, queue: Queue | None = None) -> None:
        _check_limits(policy, ledger, limits)
        self._limits = limits
        self._state = State(SlotTable(limits.slots, limits.max_len), ledger, Fifo() if queue is None else queue)
        self._planner = Planner(policy, limits, self._state)
        self.dropped_tokens = self.steps = self.positions = self.padding = 0
        self.committed: Flight | None = None
        self._committed_ns = 0

    @property
    def num_running(self) -> int:
        return len(self._state.table.running)

    @property
    def num_waiting(self) -> int:
        return len(self._state.queue)

    @property
    def in_flight(self) -> int:
        """Plans that were not committed yet."""
        return len(self._state.flights)

    @property
    def free_blocks(self) -> int:
        return self._state.ledger.free

    @property
    def blocks_in_use(self) -> int:
        return self._state.ledger.in_use

    @property
    def preemptions(self) -> int:
        return self._state.preemptions

    @property
    def prefix_queried(self) -> int:
        """Prompt tokens that were looked up in the prefix cache."""
        return self._state.prefix_queried

    @property
    def prefix_hit(self) -> int:
        """Prompt tokens that were found in it."""
        return self._state.prefix_hit

    @property
    def wake_ns(self) -> int | None:
        """When to plan again though nothing happens, after a plan() that returned None."""
        return self._planner.wake_ns

    def submit(self, request: NewRequest) -> End | None:
        """Queue a request. Raises BadRequest if it can never run.

        An End where it resumes and its output is whole already: its last token was delivered, its end was not.
        """
        assert request.key not in self._state.jobs, "a key is used once"
        job = Job(request, request.output_ids)
        reason = job.completed()
        if reason is not None:
            return job.end(reason, 0)
        self._check_request(job)
        self._state.jobs[job.key] = job
        self._state.queue.push(job)
        self._state.note(job.key, request.arrival_ns, ARRIVED)
        return None

    def abort(self, key: int, now_ns: int) -> End | None:
        """End a request, waiting or running. None: it is unknown or over already."""
        state = self._state
        job = state.jobs.get(key)
        if job is None:
            return None
        if job.slot is not None:
            state.leave(job.slot)
            state.settle()
            job.seated_ns[OTHERS] += now_ns - job.settled_ns
            job.settled_ns = now_ns
        else:
            state.queue.remove(key)
            job.waited(now_ns, state.held_since_ns)
            if not len(state.queue):
                state.held_since_ns = None
        return self._end(job, "abort", now_ns)

    def plan(self, now_ns: int) -> Plan | None:
        """The next launch, or None where there is nothing to launch now (see wake_ns)."""
        return self._planner.plan(now_ns)

    def commit(self, output: Output, now_ns: int, launched_ns: int | None = None) -> Events:
        """Settle the oldest launch in flight, which was collected now. launched_ns: when it began; None: when planned.

        The device had it since then, or since the launch before it was collected.
        """
        state, table = self._state, self._state.table
        flight = state.flights.popleft()
        assert flight.serial == output.serial, "collected out of order"  # R1
        self.steps += 1
        self.positions += output.positions
        self.padding += output.padding
        if flight.batch is not None:
            flight.batch.stepped(output)
        rows, promise = flight.rows, flight.promise
        counts, tokens, finished = output.counts, output.tokens, output.finished
        live: Bools | None = None
        if flight.departures != state.departures:  # R10
            live = table.seating[rows] == flight.seatings
            self.dropped_tokens += int(counts[~live].sum())
            rows, promise = rows[live], promise[live]
            counts, tokens, finished = counts[live], tokens[live], finished[live]
        known, length = table.append(rows, counts, tokens)
        if np.count_nonzero(counts == promise) < len(rows):
            short = counts < promise
            assert (counts <= promise).all(), "a promise is a cap"  # R3
            assert (finished[short] & (counts[short] > 0)).all(), "only a stop ends a row before its promise"
        table.tally(rows, len(flight.rows))
        began_ns = max(flight.planned_ns if launched_ns is None else launched_ns, self._committed_ns)
        self._settle_time(flight, output, live, now_ns - began_ns, now_ns)
        if state.silent:
            self._note_first_tokens(now_ns)
        for slot in flight.chunks:
            if slot in table.running:
                state.publish(slot)
        keys = flight.keys if live is None else flight.keys[live]
        scores = self._scores(flight, output) if output.scores else ()
        over = (finished | (length >= table.limit[rows])).nonzero()[0].tolist()
        reasons: list[FinishReason] = ["stop" if finished[i] else "length" for i in over]
        left = [state.leave(int(rows[i])) for i in over]
        ends = tuple(self._end(job, reason, now_ns) for job, reason in zip(left, reasons, strict=True))
        state.ledger.collected(output.serial)
        return Events(keys, counts, known, ends, scores)

    def _settle_time(self, flight: Flight, output: Output, live: Bools | None, device_ns: int, now_ns: int) -> None:
        walls, table = self._state.walls, self._state.table
        self.committed, self._committed_ns = flight, now_ns
        num_rows = len(flight.rows)
        if flight.single and live is None and not walls.joined and num_rows == len(table.running):
            walls.settle_all(num_rows, int(flight.rows[-1]), device_ns, now_ns)
            return
        computed = flight.counts if flight.horizon == 1 else flight.counts + np.maximum(output.counts - 1, 0)
        walls.settle(table.order(), flight.rows, flight.phases, computed, live, device_ns, now_ns)

    def _scores(self, flight: Flight, output: Output) -> tuple[Scores, ...]:
        """Log-probabilities by request instead of by row, without those of seatings that ended (R10)."""
        table = self._state.table
        return tuple(
            replace(scores, owner=int(table.key[flight.rows[scores.owner]]))
            for scores in output.scores
            if table.seating[flight.rows[scores.owner]] == flight.seatings[scores.owner]
        )

    def take_lives(self) -> list[tuple[int, int, int, int]]:
        """What became of requests since the last time, as in core.flight.Lives: key, at_ns, serial, what."""
        lives = self._state.lives
        if not lives:
            return []
        taken = list(lives)
        lives.clear()
        return taken

    def timings(self, keys: Iterable[int], now_ns: int) -> dict[int, Timings]:
        """Of those that are not over, as far as they are: until now if they wait, until the last commit if they run."""
        return {key: self._state.timings(job, now_ns) for key in keys if (job := self._state.jobs.get(key)) is not None}

    def discard(self) -> None:
        """End every request without a word; what is in flight is never collected, and was perhaps never launched.

        So nothing is published: a block that was to be computed would poison the prefix cache.
        """
        self._state.discard()

    def _note_first_tokens(self, now_ns: int) -> None:
        state, table = self._state, self._state.table
        for slot in [slot for slot, had in state.silent.items() if table.length[slot] > had]:
            table.running[slot].first_token_ns = now_ns
            state.note(int(table.key[slot]), now_ns, FIRST_TOKEN)
            del state.silent[slot]

    def _end(self, job: Job, reason: FinishReason, now_ns: int) -> End:
        self._state.end(job, now_ns)
        return job.end(reason, now_ns)

    def _check_request(self, job: Job) -> None:
        size, new = len(job.request.prompt_ids), job.request.max_tokens
        if not size:
            raise BadRequest("prompt: at least one token is needed", param="prompt")
        if new < 1:
            raise BadRequest(f"max_tokens: {new} is too small; it must be at least 1", param="max_tokens")
        ledger = self._state.ledger
        for most, what in (
            (self._limits.max_len, "the longest sequence here"),
            (ledger.num_blocks * ledger.block_size + 1, "what the KV cache can hold of one sequence"),
        ):
            if job.limit > most:
                param = "prompt" if size >= most else "max_tokens"
                raise BadRequest(
                    f"{param}: a prompt of {size} tokens and {new} new ones make {job.limit}; {what} is {most}",
                    param=param,
                )

    def check(self) -> None:
        """Assert what must hold between any two calls. Costs as much as many steps."""
        self._state.check()


def _check_limits(policy: Policy, ledger: Ledger, limits: SchedulerLimits) -> None:
    """Refuse what could never run, with the numbers."""
    slots, max_len, budget = limits.slots, limits.max_len, limits.budget
    if slots < 1 or max_len < 2 or limits.horizon < 1 or limits.spare < 0:
        raise ConfigError(
            f"at least 1 slot, 2 tokens a sequence, a horizon of 1 and no negative spare are needed; got {slots} "
            f"slots, {max_len} tokens, horizon {limits.horizon}, spare {limits.spare}"
        )
    if budget < slots:
        raise ConfigError(
            f"a step of {budget} tokens is too small for {slots} running requests, which decode together, one token "
            f"each; allow at least {slots} tokens a step or fewer requests"
        )
    if not limits.divides(policy, ledger) and budget < max_len:
        raise ConfigError(
            f"a step of {budget} tokens is too small for a sequence of {max_len}, which is computed whole here; "
            f"allow at least {max_len} tokens a step or shorten the longest sequence"
        )
    if limits.horizon > 1 and not ledger.keeps:
        raise ConfigError(
            f"without a KV cache every iteration begins with the whole sequence: ask for a horizon of 1, "
            f"not {limits.horizon}"
        )
    assert (ledger.slots, ledger.max_len) == (slots, max_len), "the ledger was made for other limits"
