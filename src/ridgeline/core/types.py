"""What travels between the rooms: requests, plans, outputs, events. All frozen; knows no tensor and no socket.

A request's work is `length + promised - computed`: `length` tokens are known, `promised` were launched but not seen
by the host yet, `computed` have their KV entries (the idea is vLLM v1's; `promised` makes it hold when launches
overlap). Prompts, chunks, decode steps and recomputation are the same thing with other numbers.

A request sits in a *slot* while it runs. Arrays over rows name slots; a row is one request in one step.
Times are nanoseconds of one monotonic clock that all processes of this machine share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ridgeline.core.errors import BadRequest

Ints = NDArray[np.int64]
Tokens = NDArray[np.int32]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

MAX_STOP_IDS = 64
"""Stop tokens of a request at most: the device compares every new token with all of them."""
MAX_LOGIT_BIAS = 1024
"""Tokens of a request with a bias at most."""
MAX_LOGPROBS = 20
"""Likeliest tokens that a request may ask for at each position."""

FinishReason = Literal["stop", "length", "abort"]

NO_INTS: Ints = np.empty(0, np.int64)
NO_TOKENS: Tokens = np.empty(0, np.int32)
NO_BLOCKS: tuple[Ints, Ints, Ints] = (NO_INTS, NO_INTS, NO_INTS)
for _array in (NO_INTS, NO_TOKENS):
    _array.flags.writeable = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the device chooses a request's next token.

    Logits are changed in this order: repetition_penalty (1 is off; over prompt and output), presence_penalty and
    frequency_penalty (0 is off; over the output), logit_bias ((token, addend) pairs), stop ids (min_tokens: they cannot
    be chosen before that many tokens are out). Then temperature (0 is greedy), top_k (0 is off), top_p (1 is off) and
    min_p (0 is off: tokens below that share of the likeliest one's probability are dropped).
    seed: 64 bits; position p of the request uses the uniform Philox(seed, p), so a result does not depend on the batch,
    on preemption or on a restart.
    logprobs, prompt_logprobs: how many of the likeliest tokens to report at each position of the output or the prompt
    beside the token itself; None: no log-probabilities. They are those of the model: log-softmax in float32 of the
    logits before any change.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0
    seed: int = 0
    stop_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        if len(self.stop_ids) > MAX_STOP_IDS:
            raise BadRequest(
                f"stop_token_ids: {len(self.stop_ids)} with the model's own, at most {MAX_STOP_IDS} are possible",
                param="stop_token_ids",
            )


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request on its way to the scheduler. `output_ids` is not empty when it resumes after a crash.

    cache_salt: the prefix cache shares blocks only between requests of the same salt.
    """

    key: int
    prompt_ids: Tokens
    max_tokens: int
    sampling: Sampling
    arrival_ns: int
    output_ids: Tokens = field(default_factory=lambda: NO_TOKENS)
    cache_salt: str = ""


@dataclass(frozen=True, slots=True)
class Join:
    """A request takes a slot. `output_ids` is not empty after preemption and after a crash.

    The arrays are copies: they alias nothing that the scheduler goes on writing.
    limit: prompt + new tokens at most. blocks: found in the prefix cache, computed already.
    """

    slot: int
    prompt_ids: Tokens
    output_ids: Tokens
    blocks: tuple[int, ...]
    limit: int
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Plan:
    """One launch: for each row its slot, where it starts, how many tokens it computes, how many it may make.

    rows, starts, counts, promise: [rows]. A row covers positions [start, start + count) of its sequence. `promise` is
    the number of tokens it makes at most, a cap that the device obeys; 0 is a chunk that is not the last.
    new_blocks: three equal arrays (slot, index in the slot's table, block). Before the launch leaves come first, then
    joins, then new_blocks: a slot can be left and taken in one plan. seats: rows that the running batch holds, members
    that ended included; equal to len(rows) under policies that refill. horizon: decode iterations at most.
    """

    serial: int
    rows: Ints
    starts: Ints
    counts: Ints
    promise: Ints
    joins: tuple[Join, ...]
    leaves: tuple[int, ...]
    new_blocks: tuple[Ints, Ints, Ints]
    seats: int
    horizon: int = 1


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of consecutive tokens of one sequence, of its prompt or of its output, never of both.

    owner: in an Output the row of the launch, in Events the request's key. first: position in the sequence of the
    first token scored; a prompt that is recomputed after preemption is scored again. tokens, values: [n], the tokens
    themselves. top_ids, top_values: [n, k], the k likeliest tokens, the likeliest first; where the token itself is
    among them its value is the same number. k may exceed what this request asked for, never fall short of it.
    """

    owner: int
    prompt: bool
    first: int
    tokens: Tokens
    values: Floats
    top_ids: Tokens
    top_values: Floats


@dataclass(frozen=True, slots=True)
class Output:
    """What a launch made. counts: tokens made per row [rows]; tokens: [rows, widest], valid up to counts.

    finished: [rows], the row's last token is one of its stop ids. positions: token positions that the device really
    processed, padding included; padding: how many of them were of no use to anybody. scores: for the rows that asked
    for log-probabilities.
    """

    serial: int
    counts: Ints
    tokens: Tokens
    finished: Bools
    positions: int
    padding: int
    scores: tuple[Scores, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch that nobody joins once it runs (policies one, static and dynamic), as far as it has come.

    closed: why it started (`full`, `window`, `ready`: nothing was waited for). padded_length: its longest prompt.
    positions and padding as in Output, summed over its steps. kv_blocks: the most blocks it held.
    """

    serial: int
    size: int
    closed: str
    opened_ns: int
    closed_ns: int
    padded_length: int
    steps: int
    positions: int
    padding: int
    kv_blocks: int


@dataclass(frozen=True, slots=True)
class WallParts:
    """Where a request's time went while the engine had it, in the order in which it is shown; they leave nothing out.

    window: the device was free and the policy kept it back. queued: it waited for a seat otherwise. prefill, decode,
    recomputed: steps that it was in, by what they computed of it (core/flight.PHASES). others: seated, but not in the
    step that ran. preempted: waiting for a seat again. Host time between two steps belongs to the later one.
    """

    window_ns: int = 0
    queued_ns: int = 0
    prefill_ns: int = 0
    others_ns: int = 0
    decode_ns: int = 0
    preempted_ns: int = 0
    recomputed_ns: int = 0

    @property
    def total_ns(self) -> int:
        """finished_ns - arrival_ns, exactly."""
        return sum(getattr(self, name) for name in WallParts.__slots__)


@dataclass(frozen=True, slots=True)
class Timings:
    """A request's wall clock and whom it shared its steps with.

    held_ns: of the wait before admission, the part in which the device was free and the policy kept the request
    back (its window was open). steps: launches it was in; rows: sum over them of the rows in the step. device_ns: its
    share of the device's time, which every step divides among its rows by the tokens that they computed.
    """

    arrival_ns: int
    held_ns: int
    admitted_ns: int
    first_token_ns: int
    finished_ns: int
    steps: int
    rows: int
    preemptions: int
    batch: BatchRecord | None
    parts: WallParts = WallParts()
    device_ns: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """A request is over. cached: prompt tokens that the prefix cache had."""

    key: int
    reason: FinishReason
    cached: int
    timings: Timings


@dataclass(frozen=True, slots=True)
class Events:
    """What one commit made known, each token of each request exactly once.

    keys, counts: [rows]; tokens: [sum of counts], row after row; ends: requests that are over, their last tokens
    included in the same Events. scores: of the tokens in the same Events, or of a part of a prompt.
    """

    keys: Ints
    counts: Ints
    tokens: Tokens
    ends: tuple[End, ...]
    scores: tuple[Scores, ...] = ()

    @staticmethod
    def none() -> Events:
        return _NO_EVENTS


_NO_EVENTS = Events(NO_INTS, NO_INTS, NO_TOKENS, ())


class StepRecord(NamedTuple):
    """One step as a sink sees it: counts, two stamps, and who was in it. Of rows and stall: as in core/flight.py.

    A tuple, because one is made for every step and a frozen dataclass takes three times as long to make.
    """

    serial: int
    launched_ns: int
    collected_ns: int
    rows: int
    tokens: int
    positions: int
    padding: int
    waiting: int
    kv_blocks: int
    horizon: int
    stall: int
    keys: Ints
    starts: Ints
    counts: Ints
    made: Ints
    phases: Ints
