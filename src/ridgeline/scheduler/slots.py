"""Slot table: facts about seated requests as arrays over slots. The scheduler writes it. Knows no block, no plan."""

from __future__ import annotations

import numpy as np

from ridgeline.core.types import NO_INTS, Ints, Tokens
from ridgeline.scheduler.job import Job


class SlotTable:
    """Arrays over slots; `tokens` is [slots, max_len].

    length: tokens known. ahead: length + promised, what the row has once everything in flight is collected at its
    cap. computed: tokens whose KV entries exist once everything in flight is collected. limit: tokens at most.
    seating: a number of its own for each time a request takes a slot, 0 where the slot is empty. steps, shared:
    launches that this seating was in and the rows in them, less those that everybody was in, which are counted once.
    """

    def __init__(self, slots: int, max_len: int) -> None:
        self.slots, self.max_len = slots, max_len
        self.tokens: Tokens = np.zeros((slots, max_len), np.int32)
        self._flat = self.tokens.reshape(-1)
        self.length, self.ahead, self.computed, self.limit = (np.zeros(slots, np.int64) for _ in range(4))
        self.key, self.seating, self.steps, self.shared = (np.zeros(slots, np.int64) for _ in range(4))
        self.running: dict[int, Job] = {}  # by slot, the oldest seating first
        self.empty = list(range(slots - 1, -1, -1))
        self._seatings = self._all_steps = self._all_shared = 0
        self._order, self._ordered = NO_INTS, NO_INTS  # slots and their seatings, as of the last order()
        self._joined: list[int] = []
        self._stale = False

    def order(self) -> Ints:
        """Running slots, the oldest seating first. The same read-only array until somebody joins or leaves."""
        if self._stale:
            stayed = self._order[self.seating[self._order] == self._ordered]
            joined = [slot for slot in self._joined if slot in self.running]
            self._order = np.concatenate((stayed, np.array(joined, np.int64)))
            self._order.flags.writeable = False
            self._ordered = self.seating[self._order]
            self._joined, self._stale = [], False
        return self._order

    def seat(self, job: Job, slot: int, ids: Tokens, computed: int) -> None:
        """The job takes the slot on top of `empty`."""
        assert self.empty[-1] == slot, "slots are handed out from the top"
        self.empty.pop()
        count = len(ids)
        self._seatings += 1
        self.tokens[slot, :count] = ids
        self.length[slot] = self.ahead[slot] = count
        self.computed[slot], self.limit[slot], self.key[slot] = computed, job.limit, job.key
        self.seating[slot], self.steps[slot], self.shared[slot] = self._seatings, -self._all_steps, -self._all_shared
        self.running[slot], self._stale = job, True
        self._joined.append(slot)
        job.slot = slot

    def leave(self, slot: int) -> Job:
        """The slot is empty; what it knew about the steps goes to the job."""
        job = self.running.pop(slot)
        self.tell(slot, job)
        job.slot, self._stale, self.seating[slot] = None, True, 0
        self.empty.append(slot)
        return job

    def tell(self, slot: int, job: Job) -> None:
        """The job knows of this seating what is known until now."""
        job.steps += int(self.steps[slot]) + self._all_steps
        job.rows += int(self.shared[slot]) + self._all_shared

    def append(self, rows: Ints, counts: Ints, tokens: Tokens) -> tuple[Tokens, Ints]:
        """Add the first counts[i] of tokens[i] to row i. Returns them row after row, and the new lengths."""
        length = self.length[rows]
        at = rows * self.max_len + length
        if tokens.shape[1] == 1 and np.count_nonzero(counts) == len(rows):
            flat: Tokens = tokens.reshape(-1)
        else:
            span = np.arange(tokens.shape[1])
            valid = span < counts[:, None]
            flat, at = tokens[valid], (at[:, None] + span)[valid]
        self._flat[at] = flat
        length += counts
        self.length[rows] = length
        return flat, length

    def tally(self, rows: Ints, shared: int) -> None:
        """These rows were in a launch of `shared` rows."""
        if len(rows) == len(self.running):
            self._all_steps += 1
            self._all_shared += shared
        else:
            self.steps[rows] += 1
            self.shared[rows] += shared

    def output(self, slot: int) -> Tokens:
        """A copy of what the request in this slot has made so far."""
        return self.tokens[slot, len(self.running[slot].request.prompt_ids) : self.length[slot]].copy()
