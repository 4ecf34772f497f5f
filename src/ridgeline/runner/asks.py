"""Asks: what each slot's request wants of the sampler beyond the likeliest token, on the host. Knows no tensor.

Whoever does not ask does not pay: the sampler and the scorer look here which rows to touch, without asking the device.
"""

from __future__ import annotations

import numpy as np

from ridgeline.core.types import Bools, Ints, Join

NOT_ASKED = -1

LIKELIEST, DRAWN, SHAPED, REPORTED = range(4)
"""What a slot needs of a step that makes a token: the likeliest one; or a draw from the whole distribution; from one
that is changed or cut; and log-probabilities too. Who can do one of them can do those before it."""


class Asks:
    """Arrays over slots. draws: temperature above 0; top_k, and cuts_p, cuts_min_p: and which cuts it makes. penalizes,
    biases, forbids: which changes its logits need; changes: any of them. logprobs, prompt_logprobs: likeliest tokens to
    report, or NOT_ASKED. needs: LIKELIEST to REPORTED.
    prompts: length of the prompt; scored: positions of it whose successors were scored."""

    def __init__(self, slots: int) -> None:
        self.draws, self.cuts_p, self.cuts_min_p = _flags(slots, 3)
        self.top_k: Ints = np.zeros(slots, np.int64)
        self.penalizes, self.biases, self.forbids, self.changes = _flags(slots, 4)
        self.needs: Ints = np.full(slots, LIKELIEST, np.int64)
        self.logprobs: Ints = np.full(slots, NOT_ASKED, np.int64)
        self.prompt_logprobs: Ints = np.full(slots, NOT_ASKED, np.int64)
        self.prompts: Ints = np.zeros(slots, np.int64)
        self.scored: Ints = np.zeros(slots, np.int64)

    def join(self, join: Join) -> None:
        slot, asked = join.slot, join.sampling
        self.draws[slot] = asked.temperature > 0
        self.top_k[slot], self.cuts_p[slot], self.cuts_min_p[slot] = asked.top_k, asked.top_p < 1, asked.min_p > 0
        penalties = asked.repetition_penalty, asked.presence_penalty, asked.frequency_penalty
        self.penalizes[slot] = penalties != (1, 0, 0)
        self.biases[slot] = bool(asked.logit_bias)
        self.forbids[slot] = asked.min_tokens > 0 and bool(asked.stop_ids)
        self.changes[slot] = self.penalizes[slot] or self.biases[slot] or self.forbids[slot]
        self.logprobs[slot] = NOT_ASKED if asked.logprobs is None else asked.logprobs
        self.prompt_logprobs[slot] = NOT_ASKED if asked.prompt_logprobs is None else asked.prompt_logprobs
        cuts = self.top_k[slot] > 0 or self.cuts_p[slot] or self.cuts_min_p[slot]
        shaped = SHAPED if self.changes[slot] or cuts else DRAWN if self.draws[slot] else LIKELIEST
        self.needs[slot] = shaped if asked.logprobs is None else REPORTED
        self.prompts[slot], self.scored[slot] = len(join.prompt_ids), 0


def _flags(slots: int, count: int) -> tuple[Bools, ...]:
    return tuple(np.zeros(slots, np.bool_) for _ in range(count))
