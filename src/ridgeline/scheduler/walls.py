"""Walls: where the time of seated requests goes, and whose the device's time was. Knows slots; knows no job's queue.

Two ledgers, never mixed. In the wall ledger a step counts in full for everybody who was in it, and for everybody
seated who was not; in the resource ledger it is divided among its rows by the tokens that they computed.
"""

from __future__ import annotations

import numpy as np

from ridgeline.core.flight import DECODE, PREFILL, RECOMPUTED
from ridgeline.core.types import Bools, Ints
from ridgeline.scheduler.job import OTHERS, Job


class Walls:
    """Every nanosecond from admission on belongs to one part: of those in Job.seated_ns, [parts, slots].

    A step that all seated rows were in, each with one token that was not computed before, is counted once for all of
    them, in `_all_decode_ns` and `_all_device_ns`: a slot's own numbers are less what those were when it was taken.
    `_settled_ns` is until when a slot's time is accounted, less `_all_decode_ns` at that moment, for the same reason.
    reached: positions below it were computed, in this seating. again: positions below it before this seating; first:
    positions from here on are decoded. new: slots which have not reached that yet.
    """

    def __init__(self, slots: int) -> None:
        self._parts: Ints = np.zeros((OTHERS + 1, slots), np.int64)
        self._device_ns, self._settled_ns = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
        self._reached, self._again, self._first = (np.zeros(slots, np.int64) for _ in range(3))
        self._new: set[int] = set()
        self._joined = False
        self._all_decode_ns = self._all_device_ns = self._committed_ns = 0
        self._decodes: Ints = np.full(slots, DECODE, np.int64)
        self._decodes.flags.writeable = False
        self.device_ns = self.dropped_ns = 0

    def seat(self, slot: int, job: Job, now_ns: int) -> None:
        self._parts[:, slot], self._parts[DECODE, slot] = 0, -self._all_decode_ns
        self._device_ns[slot], self._settled_ns[slot] = -self._all_device_ns, now_ns - self._all_decode_ns
        self._reached[slot], self._again[slot] = 0, job.computed_before
        self._first[slot] = max(job.computed_before, len(job.request.prompt_ids))
        self._new.add(slot)
        self._joined = True

    def leave(self, slot: int, job: Job, length: int) -> None:
        """What is known of the slot goes to the job. length: its tokens, the last of them not computed yet."""
        self.tell(slot, job)
        reached = int(self._reached[slot]) if slot in self._new else length - 1
        job.computed_before = max(job.computed_before, reached)
        self._new.discard(slot)

    def tell(self, slot: int, job: Job) -> None:
        """The job knows of this seating what is known until now."""
        job.seated_ns += self._parts[:, slot]
        job.seated_ns[DECODE] += self._all_decode_ns
        job.device_ns += int(self._device_ns[slot]) + self._all_device_ns
        job.settled_ns = int(self._settled_ns[slot]) + self._all_decode_ns

    @property
    def steady(self) -> bool:
        """Whether all seated rows decode."""
        return not self._new

    def phases(self, rows: Ints, starts: Ints, ends: Ints) -> Ints:
        """[rows] of core.flight.PHASES, for a launch in which row i computes positions from starts[i] to ends[i].

        Without a KV cache a row starts at 0 every time: only what it has not computed in this seating counts.
        """
        if not self._new:
            return self._decodes[: len(rows)]
        done = np.maximum(starts, self._reached[rows])
        phases: Ints = np.where(done < self._first[rows], PREFILL, DECODE)
        phases[done < self._again[rows]] = RECOMPUTED
        self._reached[rows] = ends
        self._new = {slot for slot in self._new if self._reached[slot] < self._first[slot]}
        return phases

    @property
    def joined(self) -> bool:
        """Whether somebody was seated since the last step was committed."""
        return self._joined

    def settle_all(self, num_rows: int, last: int, device_ns: int, now_ns: int) -> None:
        """All seated rows were in this step with one token each, last: the slot of the last of them."""
        self._all_decode_ns += now_ns - self._committed_ns
        each, rest = divmod(device_ns, num_rows)
        self._all_device_ns += each
        self._device_ns[last] += rest
        self.device_ns += device_ns
        self._committed_ns = now_ns

    def settle(
        self,
        seated: Ints,
        rows: Ints,
        phases: Ints,
        computed: Ints,
        live: Bools | None,
        device_ns: int,
        now_ns: int,
    ) -> None:
        """A step was committed. seated: slots; rows, phases, computed: of the launch; live: rows still seated."""
        shares = computed * device_ns // int(computed.sum())
        shares[-1] += device_ns - int(shares.sum())
        if live is not None:
            self.dropped_ns += int(shares[~live].sum())
            rows, phases, shares = rows[live], phases[live], shares[live]
        self._device_ns[rows] += shares
        self.device_ns += device_ns
        now = now_ns - self._all_decode_ns
        spent = now - self._settled_ns
        self._parts[OTHERS, seated] += spent[seated]
        self._parts[OTHERS, rows] -= spent[rows]
        self._parts[phases, rows] += spent[rows]
        self._settled_ns[seated] = now
        self._committed_ns, self._joined = now_ns, False
