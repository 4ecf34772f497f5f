"""State: everything of the scheduler that lives, and how a request leaves its slot. Knows no policy and no event."""

from __future__ import annotations

from collections import deque

import numpy as np

from ridgeline.core.types import Ints
from ridgeline.kv.ledger import Ledger
from ridgeline.scheduler.job import Job
from ridgeline.scheduler.making import Flight
from ridgeline.scheduler.queue import Queue
from ridgeline.scheduler.slots import SlotTable


class State:
    """Written by the scheduler and its planner, by nobody else.

    jobs: every request that waits or runs, by key. flights: launches not collected yet, the oldest first. leaves: slots
    left since the last plan. serial: the newest plan's. departures: how often a slot was left. silent: by slot, the
    length at admission of those who have made no token yet. prefix_queried, prefix_hit: prompt tokens of those who were
    admitted, looked up in the prefix cache and found there; a preempted request counts once.
    """

    def __init__(self, table: SlotTable, ledger: Ledger, queue: Queue) -> None:
        self.table, self.ledger, self.queue = table, ledger, queue
        self.jobs: dict[int, Job] = {}
        self.flights: deque[Flight] = deque()
        self.leaves: list[int] = []
        self.serial = self.departures = self.preemptions = 0
        self.prefix_queried = self.prefix_hit = 0
        self.silent: dict[int, int] = {}
        self.held_since_ns: int | None = None
        """Since when nothing runs because the policy keeps back those who wait."""

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
            self._vacate(slot)
        for job in list(self.queue.ordered()):
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
        return self.table.leave(slot)

    def settle(self) -> None:
        """Blocks of those who left while nothing is in flight come free at once."""
        if not self.flights:
            self.ledger.collected(self.serial)

    def preempt(self, slot: int) -> None:
        """The request goes back to the head of the queue with what it has made; its KV entries are recomputed."""
        output_ids = self.table.output(slot)
        job = self.leave(slot)
        self.settle()
        job.output_ids = output_ids
        job.preemptions += 1
        self.preemptions += 1
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
