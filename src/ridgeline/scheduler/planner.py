"""Planner: from a policy's groups of claims to one plan. Reserves, preempts and cuts; knows no event and no output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ridgeline.core.flight import ADMITTED, BLOCKS, BUDGET, NO_STALL, ORDER, SLOTS, WINDOW
from ridgeline.core.types import Bools, Ints, Join, Plan
from ridgeline.kv.ledger import Ledger
from ridgeline.scheduler.batches import Batch
from ridgeline.scheduler.job import Job
from ridgeline.scheduler.making import Flight, Making
from ridgeline.scheduler.policies import Choice, Claim, Policy, SeatClaim, SpanClaim, StepClaim, View
from ridgeline.scheduler.state import State


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """slots: requests that run at once. max_len: longest sequence, prompt and output. budget: tokens a step computes.

    horizon: decode iterations of a launch at most. spare: blocks that an admission leaves free for each running row;
    half a block each cuts preemptions to a fifth for a few per cent more steps. chunked: claims are cut to the budget,
    where policy and ledger allow it.
    """

    slots: int
    max_len: int
    budget: int
    horizon: int = 1
    spare: float = 0.5
    chunked: bool = True

    def divides(self, policy: Policy, ledger: Ledger) -> bool:
        """Whether a claim can be cut: computed by several plans. Without a cache the parts would be lost."""
        return self.chunked and policy.divisible and ledger.keeps


class Planner:
    """wake_ns: when to plan again though nothing happens, after a plan() that returned None."""

    def __init__(self, policy: Policy, limits: SchedulerLimits, state: State) -> None:
        self._policy, self._limits, self._state = policy, limits, state
        self._divisible = limits.divides(policy, state.ledger)
        self.wake_ns: int | None = None
        self._batch: Batch | None = None
        self._batches = 0
        self._hopeless: tuple[int, int] | None = None
        self._claimants = 0  # seated rows that had something to compute, as of the last view

    def plan(self, now_ns: int) -> Plan | None:
        state = self._state
        self.wake_ns = None
        choice = self._policy.groups(self._view(), now_ns)
        making = Making(self._limits.budget, now_ns)
        for group in choice.groups:
            for claim in group:
                if isinstance(claim, StepClaim):
                    self._grant_steps(making, claim)
                elif isinstance(claim, SpanClaim):
                    self._grant_span(making, claim)
                else:
                    self._admit(making, claim)
            if not making.empty:
                return self._seal(making, choice)
        self.wake_ns = choice.wake_ns
        held = len(state.queue) and not state.table.running and not any(choice.groups)
        if held and state.held_since_ns is None:
            state.held_since_ns = now_ns
        return None

    def _view(self) -> View:
        table = self._state.table
        order = table.order()
        ahead, starts = table.ahead[order], table.computed[order]
        work = ahead - starts
        open_ = ahead < table.limit[order]  # R2
        one = open_ & (work == 1)
        singles = self._claimants = int(np.count_nonzero(one))
        decode: list[Claim] = []
        partial: list[Claim] = []
        if singles == len(order):
            decode = [StepClaim(order, starts, work)] if singles else []
        else:
            if singles:
                decode = [StepClaim(order[one], starts[one], work[one])]
            more = (open_ & (work > 1)).nonzero()[0].tolist()
            self._claimants += len(more)
            partial = [SpanClaim(int(order[i]), int(starts[i]), int(work[i])) for i in more]
        return View(decode, partial, len(order), len(table.empty), self._state.queue)

    def _grant_steps(self, making: Making, claim: StepClaim) -> None:
        rows, starts, ones = claim.rows, claim.starts, claim.ones
        if making.preempted:  # R7
            rows, starts, ones = _only(self._state.table.seating[rows] > 0, rows, starts, ones)
        if len(rows) > making.left:
            making.stall = making.stall or BUDGET
            return
        while len(rows):
            blocks = self._state.ledger.reserve(rows, starts + ones)
            if blocks is not None:
                making.add_steps(rows, starts, ones, blocks)
                return
            if self._state.flights:  # R5: nobody is preempted now, but only those who lack a block wait
                making.refuse(BLOCKS)
                rows, starts, ones = _only(self._state.ledger.within(rows, starts + ones), rows, starts, ones)
                continue
            victim = self._preempted(making, int(rows[0]) if len(rows) == 1 else None)
            if victim is None:
                return
            rows, starts, ones = _only(rows != victim, rows, starts, ones)

    def _grant_span(self, making: Making, claim: SpanClaim) -> None:
        slot, table = claim.slot, self._state.table
        count = self._cut(making, claim.work)
        if slot not in table.running:  # R7
            return
        if not count:
            making.refuse(BUDGET)
            return
        while (blocks := self._state.ledger.grow(slot, claim.start + count)) is None:
            if self._preempted(making, slot) is None:
                return
        making.add_span(slot, claim.start, count, claim.work, blocks)

    def _cut(self, making: Making, work: int) -> int:
        """How much of a claim fits into what the budget has left."""
        if work <= making.left:
            return work
        return making.left if self._divisible else 0

    def _preempted(self, making: Making, claimant: int | None) -> int | None:
        """The slot of the latest who could give up its blocks for others, and did. None: the others sit out.

        claimant: the only row that would gain; if it is the latest itself, it waits where it is and older ones go on.
        """
        state = self._state
        making.refuse(BLOCKS)
        if state.flights:  # R5: blocks may be on their way
            return None
        granted = making.granted()  # R6
        holders = (slot for slot in reversed(state.table.running) if state.ledger.holds(slot))
        victim = next((slot for slot in holders if slot not in granted), None)
        if victim is None or victim == claimant:
            return None
        state.preempt(victim, making.now_ns)
        making.preempted = True
        return victim

    def _admit(self, making: Making, claim: SeatClaim) -> None:
        state, table, ledger, job = self._state, self._state.table, self._state.ledger, claim.job
        lacks = self._lacks(making, job)
        if making.refused or lacks:
            making.refuse(lacks)
            return
        slot, ids = table.empty[-1], job.ids
        looks = job.request.sampling.prompt_logprobs is None  # they need every position of the prompt computed
        found = ledger.seat(slot, ids if looks else ids[:0], job.request.cache_salt)
        done = len(found) * ledger.block_size
        work = len(ids) - done
        count = self._cut(making, work)
        spare = int(self._limits.spare * len(table.running))
        blocks = ledger.grow(slot, done + count, spare) if count else None
        if blocks is None:
            ledger.unseat(slot)
            self._hopeless = (job.key, ledger.epoch) if count else None  # not tried again before a block is freed
            making.refuse(BLOCKS if count else BUDGET)
            return
        state.queue.remove(job.key)
        table.seat(job, slot, ids, done)
        if job.first_token_ns is None:
            state.silent[slot] = len(ids)
        if job.admitted_ns is None and ledger.shares and looks:
            state.prefix_queried += len(job.request.prompt_ids)
            state.prefix_hit += min(done, len(job.request.prompt_ids))
        job.admit(making.now_ns, state.held_since_ns, done)
        state.walls.seat(slot, job, making.now_ns)
        state.note(job.key, making.now_ns, ADMITTED)
        asked = job.request
        join = Join(slot, asked.prompt_ids, job.output_ids, tuple(found.tolist()), job.limit, asked.sampling)
        making.joins.append(join)
        making.add_span(slot, done, count, work, blocks)

    def _lacks(self, making: Making, job: Job) -> int:
        """What one who waits cannot have, known before anything is reserved for it."""
        if not making.left:
            return BUDGET
        if not self._state.table.empty:
            return SLOTS
        return BLOCKS if self._hopeless == (job.key, self._state.ledger.epoch) else NO_STALL

    def _passed_over(self, making: Making, choice: Choice, num_rows: int) -> int:
        """Why somebody has no part in a plan in which nobody was refused anything: what the policy did not ask for."""
        if len(self._state.queue):
            if not self._state.table.empty:
                return SLOTS
            return WINDOW if choice.gathers else ORDER
        return ORDER if num_rows - len(making.joins) < self._claimants else NO_STALL

    def _seal(self, making: Making, choice: Choice) -> Plan:
        state, table = self._state, self._state.table
        rows, starts, counts, promise = making.columns()
        ahead, horizon = table.ahead[rows], 1
        if self._limits.horizon > 1 and not making.chunks:
            limit = table.limit[rows]
            horizon = self._horizon(making, rows, ahead, limit)
            promise = np.minimum(horizon, limit - ahead)  # R3
        ahead += promise
        table.ahead[rows] = ahead
        state.serial += 1
        computed = ahead - 1 if horizon > 1 else starts + counts
        single = horizon == 1 and not making.slots and state.walls.steady
        phases = state.walls.phases(rows, starts, computed)
        table.computed[rows] = state.ledger.seal(rows, computed, state.serial)
        state.held_since_ns = None
        flight = Flight(
            serial=state.serial,
            rows=rows,
            keys=table.key[rows],
            counts=counts,
            phases=phases,
            stall=making.stall or self._passed_over(making, choice, len(rows)),
            horizon=horizon,
            single=single,
            planned_ns=making.now_ns,
            seatings=table.seating[rows],
            promise=promise,
            chunks=making.chunks,
            departures=state.departures,
            batch=(batch := self._formed(making, choice)),
        )
        state.flights.append(flight)
        leaves, state.leaves = tuple(state.leaves), []
        seats = max(len(rows), batch.size) if batch else len(rows)
        joins, blocks = tuple(making.joins), making.new_blocks()
        return Plan(state.serial, rows, starts, counts, promise, joins, leaves, blocks, seats, horizon)

    def _formed(self, making: Making, choice: Choice) -> Batch | None:
        """The batch that this launch belongs to, under a policy whose batches nobody joins."""
        if choice.closed and making.joins:
            jobs = [self._state.table.running[join.slot] for join in making.joins]
            opened_ns = min(job.request.arrival_ns for job in jobs)
            longest = max(len(job.request.prompt_ids) + len(job.output_ids) for job in jobs)
            self._batches += 1
            self._batch = Batch(self._batches, len(jobs), choice.closed, opened_ns, making.now_ns, longest)
            for job in jobs:
                job.batch = self._batch
        if self._batch is not None:
            self._batch.kv_blocks = max(self._batch.kv_blocks, self._state.ledger.in_use)
        return self._batch

    def _horizon(self, making: Making, rows: Ints, ahead: Ints, limit: Ints) -> int:
        """Decode iterations until the host should look again; every row stops by itself at its limit."""
        table, steps = self._state.table, limit - ahead
        soonest = int(steps.max())
        if making.refused:  # somebody waits for the first to finish, who may be in flight
            order = table.order()
            ending = making.preempted or bool((table.ahead[order] >= table.limit[order]).any())
            soonest = 1 if ending else int(steps.min())
        horizon = min(self._limits.horizon, soonest)
        while horizon > 1:
            blocks = self._state.ledger.reserve(rows, np.minimum(ahead + horizon, limit) - 1)
            if blocks is not None:
                making.extend(blocks)
                break
            horizon //= 2  # nobody is preempted for a longer horizon
        return horizon


def _only(mask: Bools, rows: Ints, starts: Ints, ones: Ints) -> tuple[Ints, Ints, Ints]:
    return rows[mask], starts[mask], ones[mask]
