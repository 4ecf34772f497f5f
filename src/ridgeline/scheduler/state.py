"""State: everything of the scheduler that lives, and how a request leaves its slot. Knows no policy and no event."""

from __future__ import annotations

from collections import deque

import numpy as np

from ridgeline.core.flight import ENDED, PREEMPTED
from ridgeline.core.types import Ints, Timings
from ridgeline.kv.ledger import Ledger
from ridgeline.scheduler.job import Job
from ridgeline.scheduler.making import Flight
from ridgeline.scheduler.queue import Queue
from ridgeline.scheduler.slots import SlotTable
from ridgeline.scheduler.walls import Walls

_MOST_LIVES = 65_536  # nobody may be there to take them


class State:
    """Written by the scheduler and its planner, by nobody else.

    jobs: every request that waits or runs, by key. flights: launches not collected yet, the oldest first. leaves: slots
    left since the last plan. serial: the newest plan's. departures: how often a slot was left. silent: by slot, the
    length at admission of those who have made no token yet. prefix_queried, prefix_hit: prompt tokens of those who were
    admitted, looked up in the prefix cache and found there; a preempted request counts once. lives: turns of requests'
    lives that nobody has taken yet, as in core.flight.Lives. ended_device_ns: the device's time of those who are over.
    """

    def __init__(self, table: SlotTable, ledger: Ledger, queue: Queue) -> None:
        self.table, self.ledger, self.queue = table, ledger, queue
        self.jobs: dict[int, Job] = {}
        self.flights: deque[Flight] = deque()
        self.leaves: list[int] = []
        self.serial = self.departures = self.preemptions = 0
        self.prefix_queried = self.prefix_hit = 0
        self.silent: dict[int, int] = {}
        self.walls = Walls(table.slots)
        self.lives: deque[tuple[int, int, int, int]] = deque(maxlen=_MOST_LIVES)
        self.ended_device_ns = 0
        self.held_since_ns: int | None = None
        """Since when nothing runs because the policy keeps back those who wait."""

    def note(self, key: int, at_ns: int, what: int) -> None:
        self.lives.append((key, at_ns, self.serial, what))

    def end(self, job: Job, now_ns: int) -> None:
        """The request is over; it has left its slot."""
        del self.jobs[job.key]
        self.ended_device_ns += job.device_ns
        self.note(job.key, now_ns, ENDED)

    def timings(self, job: Job, now_ns: int) -> Timings:
        """Of one who waits until now, of one who runs until it was settled last, as if it were over then."""
        so_far = job.copied()
        if job.slot is None:
            so_far.waited(now_ns, self.held_since_ns)
            return so_far.timings(now_ns)
        self.walls.tell(job.slot, so_far)
        self.table.tell(job.slot, so_far)
        return so_far.timings(so_far.settled_ns)

    def publish(self, slot: int) -> None:
        table = self.table
        certain = min(table.computed[slot], table.length[slot] - 1)  # R8: the device stops at a last token
        self.ledger.publish(slot, table.tokens[slot, :certain])

    def leave(self, slot: int) -> Job:
        """The request gives up its slot; its blocks come free when what is in flight now is collected (R11)."""
        self.publish(slot)
        return self._vacate(slot)

    def discard(self) -> None:
        """Every request is over, and so is what is in flight, launched or not: nothing more of it is published."""
        self.flights.clear()
        for slot in list(self.table.running):
            self.ended_device_ns += self._vacate(slot).device_ns
        for job in list(self.queue.ordered()):
            self.ended_device_ns += job.device_ns
            self.queue.remove(job.key)
        self.jobs.clear()
        self.leaves = list(range(self.table.slots))  # a plan that was never launched may have named some
        self.held_since_ns = None
        self.settle()

    def _vacate(self, slot: int) -> Job:
        self.ledger.release(slot, self.serial)
        self.silent.pop(slot, None)
        self.leaves.append(slot)
        self.departures += 1
        length = int(self.table.length[slot])
        job = self.table.leave(slot)
        self.walls.leave(slot, job, length)
        return job

    def settle(self) -> None:
        """Blocks of those who left while nothing is in flight come free at once."""
        if not self.flights:
            self.ledger.collected(self.serial)

    def preempt(self, slot: int, now_ns: int) -> None:
        """The request goes back to the head of the queue with what it has made; its KV entries are recomputed."""
        output_ids = self.table.output(slot)
        job = self.leave(slot)
        self.settle()
        job.output_ids = output_ids
        job.preemptions += 1
        self.preemptions += 1
        self.note(job.key, now_ns, PREEMPTED)
        self.queue.push_front(job)

    def check(self) -> None:
        table = self.table
        running = list(table.running)
        assert sorted(running + table.empty) == list(range(table.slots)), "a slot is either running or empty"
        assert np.flatnonzero(table.seating).tolist() == sorted(running)
        assert table.order().tolist() == running
        assert (np.diff(table.seating[running]) > 0).all(), "oldest first"
        due: Ints = np.zeros(table.slots, np.int64)
        for flight in self.flights:
            live = table.seating[flight.rows] == flight.seatings
            assert live.all() or flight.departures != self.departures
            due[flight.rows[live]] += flight.promise[live]
        assert (due == table.ahead - table.length)[running].all(), "promised is the sum over what is in flight"
        for slot, job in table.running.items():
            assert job.slot == slot
            assert self.jobs[job.key] is job
            assert table.key[slot] == job.key
            assert 0 <= table.computed[slot] < table.ahead[slot] <= table.limit[slot] == job.limit
            assert self.ledger.holds(slot) or not self.ledger.keeps, "whoever runs has blocks to give up"
            assert table.computed[slot] <= self.ledger.holds(slot) * self.ledger.block_size
            assert (slot in self.silent) == (job.first_token_ns is None)
        queued = [job.key for job in self.queue.ordered()]
        assert all(self.jobs[key].slot is None for key in queued)
        assert len(queued) == len(self.queue)
        assert len(self.jobs) == len(queued) + len(running)
        assert self.silent.keys() <= table.running.keys()
        self.ledger.check(running, table.tokens)
        self._check_time()

    def _check_time(self) -> None:
        """Of everybody's time nothing is missing and nothing counts twice; nor of the device's."""
        walls, used_ns = self.walls, self.walls.dropped_ns + self.ended_device_ns
        for job in self.jobs.values():
            parts_ns = job.held_ns + job.queued_ns + job.preempted_ns + int(job.seated_ns.sum())
            settled_ns, used_ns = job.settled_ns, used_ns + job.device_ns
            if job.slot is not None:
                so_far = job.copied()
                walls.tell(job.slot, so_far)
                assert (so_far.seated_ns >= job.seated_ns).all(), "no part is negative"
                parts_ns += int(so_far.seated_ns.sum() - job.seated_ns.sum())
                settled_ns, used_ns = so_far.settled_ns, used_ns + so_far.device_ns - job.device_ns
            assert parts_ns == settled_ns - job.request.arrival_ns, "the parts of a request's time are all of it"
        assert used_ns == walls.device_ns, "shares of the device's time are all of it"
