"""Job: a request while the scheduler has it. The scheduler alone writes it. Knows no array over slots."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np

from ridgeline.core.flight import DECODE, PHASES, PREFILL, RECOMPUTED
from ridgeline.core.types import End, FinishReason, Ints, NewRequest, Timings, Tokens, WallParts
from ridgeline.scheduler.batches import Batch

OTHERS = len(PHASES)
"""The part of a seated request's time that belongs to none of the phases."""


@dataclass(eq=False, slots=True)
class Job:
    """What outlives a seating: the slot table holds the rest while it runs.

    output_ids: as of the last time it left a slot (or of its submission). slot: None while it waits.
    settled_ns: until when its time is accounted: held_ns, queued_ns, preempted_ns and seated_ns (by phase, and OTHERS)
    add up to that less its arrival, but for the seating that goes on. computed_before: positions below it were computed
    in earlier seatings.
    """

    request: NewRequest
    output_ids: Tokens
    slot: int | None = None
    held_ns: int = 0
    admitted_ns: int | None = None
    first_token_ns: int | None = None
    cached: int = 0
    steps: int = 0
    rows: int = 0
    preemptions: int = 0
    batch: Batch | None = None
    settled_ns: int = 0
    queued_ns: int = 0
    preempted_ns: int = 0
    seated_ns: Ints = field(default_factory=lambda: np.zeros(OTHERS + 1, np.int64))
    device_ns: int = 0
    computed_before: int = 0

    def __post_init__(self) -> None:
        self.settled_ns = self.request.arrival_ns
        if len(self.output_ids):  # it resumes: all but its last token was computed before
            self.computed_before = len(self.request.prompt_ids) + len(self.output_ids) - 1

    def copied(self) -> Job:
        """The same for now: to be told what a seating that goes on knows."""
        other = copy.copy(self)
        other.seated_ns = self.seated_ns.copy()
        return other

    @property
    def key(self) -> int:
        return self.request.key

    @property
    def limit(self) -> int:
        """Tokens at most, prompt included."""
        return len(self.request.prompt_ids) + self.request.max_tokens

    @property
    def ids(self) -> Tokens:
        """Everything that has to be in the KV cache, or is the token to feed next."""
        prompt_ids = self.request.prompt_ids
        return np.concatenate((prompt_ids, self.output_ids)) if len(self.output_ids) else prompt_ids

    def completed(self) -> FinishReason | None:
        """Why its output is already whole, if it is: resumed after its last token was written down, its end not."""
        output = self.output_ids
        if not len(output):
            return None
        if int(output[-1]) in self.request.sampling.stop_ids:
            return "stop"
        return "length" if len(output) >= self.request.max_tokens else None

    def waited(self, now_ns: int, held_since_ns: int | None) -> None:
        """Its wait until now is accounted. held_since_ns: since when the policy keeps the queue back though nothing
        runs, if it does."""
        held_ns = 0 if held_since_ns is None else now_ns - max(self.request.arrival_ns, held_since_ns)
        waited_ns = now_ns - self.settled_ns - held_ns
        self.held_ns += held_ns
        if self.preemptions:
            self.preempted_ns += waited_ns
        else:
            self.queued_ns += waited_ns
        self.settled_ns = now_ns

    def admit(self, now_ns: int, held_since_ns: int | None, cached: int) -> None:
        """It takes a slot; cached: tokens that the prefix cache has. The first admission's facts stay."""
        self.waited(now_ns, held_since_ns)
        if self.admitted_ns is None:
            self.admitted_ns, self.cached = now_ns, min(cached, len(self.request.prompt_ids))

    def end(self, reason: FinishReason, now_ns: int) -> End:
        return End(self.key, reason, self.cached, self.timings(now_ns))

    def timings(self, now_ns: int) -> Timings:
        """As of its last seating. A time is 0 where the thing never happened."""
        return Timings(
            arrival_ns=self.request.arrival_ns,
            held_ns=self.held_ns,
            admitted_ns=self.admitted_ns or 0,
            first_token_ns=self.first_token_ns or 0,
            finished_ns=now_ns,
            steps=self.steps,
            rows=self.rows,
            preemptions=self.preemptions,
            batch=self.batch.record() if self.batch else None,
            parts=self._parts(),
            device_ns=self.device_ns,
        )

    def _parts(self) -> WallParts:
        seated_ns = self.seated_ns.tolist()
        return WallParts(
            window_ns=self.held_ns,
            queued_ns=self.queued_ns,
            prefill_ns=seated_ns[PREFILL],
            others_ns=seated_ns[OTHERS],
            decode_ns=seated_ns[DECODE],
            preempted_ns=self.preempted_ns,
            recomputed_ns=seated_ns[RECOMPUTED],
        )
