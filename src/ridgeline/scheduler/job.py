"""Job: a request while the scheduler has it. The scheduler alone writes it. Knows no array over slots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ridgeline.core.types import End, FinishReason, NewRequest, Timings, Tokens
from ridgeline.scheduler.batches import Batch


@dataclass(eq=False, slots=True)
class Job:
    """What outlives a seating: the slot table holds the rest while it runs.

    output_ids: as of the last time it left a slot (or of its submission). slot: None while it waits.
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

    def held(self, now_ns: int, since_ns: int | None) -> None:
        """since_ns: since when the policy keeps the queue back though nothing runs, if it does."""
        if since_ns is not None:
            self.held_ns += now_ns - max(self.request.arrival_ns, since_ns)

    def admit(self, now_ns: int, held_since_ns: int | None, cached: int) -> None:
        """It takes a slot; cached: tokens that the prefix cache has. The first admission's facts stay."""
        self.held(now_ns, held_since_ns)
        if self.admitted_ns is None:
            self.admitted_ns, self.cached = now_ns, min(cached, len(self.request.prompt_ids))

    def end(self, reason: FinishReason, now_ns: int) -> End:
        """A time is 0 where the thing never happened."""
        timings = Timings(
            arrival_ns=self.request.arrival_ns,
            held_ns=self.held_ns,
            admitted_ns=self.admitted_ns or 0,
            first_token_ns=self.first_token_ns or 0,
            finished_ns=now_ns,
            steps=self.steps,
            rows=self.rows,
            preemptions=self.preemptions,
            batch=self.batch.record() if self.batch else None,
        )
        return End(self.key, reason, self.cached, timings)
