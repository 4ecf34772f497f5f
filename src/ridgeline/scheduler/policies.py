"""Batching policies: orderings of claims and nothing else. Know no block, no budget and no array's content.

A policy returns groups of claims; the first group from which anything is granted becomes the next launch. The
scheduler alone reserves, preempts and cuts, so a policy cannot corrupt state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from ridgeline.core.errors import ConfigError
from ridgeline.core.options import BatchingOptions
from ridgeline.core.types import Ints
from ridgeline.scheduler.job import Job
from ridgeline.scheduler.queue import Queue


@dataclass(frozen=True, slots=True)
class StepClaim:
    """All running rows that want to compute exactly one token. rows, starts, ones: [rows]; it is not cut."""

    rows: Ints
    starts: Ints
    ones: Ints


@dataclass(frozen=True, slots=True)
class SpanClaim:
    """One running row that wants to compute more: `work` tokens from `start`."""

    slot: int
    start: int
    work: int


@dataclass(frozen=True, slots=True)
class SeatClaim:
    """Somebody who waits."""

    job: Job


Claim = StepClaim | SpanClaim | SeatClaim


@dataclass(frozen=True, slots=True)
class View:
    """What a policy may look at. decode: none or one StepClaim; partial: a SpanClaim for each other row.

    running: rows that have a slot. seats: free slots.
    """

    decode: list[Claim]
    partial: list[Claim]
    running: int
    seats: int
    queue: Queue

    @property
    def queued(self) -> int:
        return len(self.queue)

    @property
    def oldest_ns(self) -> int:
        """When the first of the queue arrived; only where somebody waits."""
        return next(self.queue.ordered()).request.arrival_ns

    def waiting(self, limit: int | None = None) -> list[Claim]:
        """Claims of those who wait, in order: no more than can be seated, but at least one, so that its refusal
        is seen."""
        most = max(1, self.seats) if limit is None else min(limit, max(1, self.seats))
        return [SeatClaim(job) for job in islice(self.queue.ordered(), most)]


@dataclass(frozen=True, slots=True)
class Choice:
    """groups: tried in order. wake_ns: when to look again though nothing has happened, if nothing was granted.

    closed: why a batch starts whose members are in these groups and which nobody joins later; empty: no such batch.
    gathers: newcomers are kept back for company, though there are seats and the others go on.
    """

    groups: Sequence[Sequence[Claim]]
    wake_ns: int | None = None
    closed: str = ""
    gathers: bool = False


class Policy(Protocol):
    @property
    def divisible(self) -> bool:
        """Whether a claim may be cut to the step's token budget (chunked prefill)."""
        ...

    @property
    def max_batch(self) -> int | None:
        """Rows that it ever runs at once; None: as many as there are slots."""
        ...

    @staticmethod
    def of(options: BatchingOptions) -> Policy:
        """Made from the options that concern it."""
        ...

    def groups(self, view: View, now_ns: int) -> Choice: ...


class Continuous:
    """Requests join and leave at every step; running rows come first, so a long prompt delays nobody by much."""

    divisible = True
    max_batch = None

    @staticmethod
    def of(options: BatchingOptions) -> Continuous:  # noqa: ARG004
        return Continuous()

    def groups(self, view: View, now_ns: int) -> Choice:  # noqa: ARG002
        return Choice([view.decode + view.partial + view.waiting()])


class PrefillFirst:
    """Requests join at every step, and their prompts are computed before running rows decode again.

    First tokens come early and others stall meanwhile, for `patience` launches at most: newcomers that never cease
    would otherwise stall them for ever. The order is that of vLLM's first engine.
    """

    divisible = True
    max_batch = None

    def __init__(self, patience: int = 8) -> None:
        self._patience, self._stalled = patience, 0

    @staticmethod
    def of(options: BatchingOptions) -> PrefillFirst:  # noqa: ARG004
        return PrefillFirst()

    def groups(self, view: View, now_ns: int) -> Choice:  # noqa: ARG002
        prompts = view.partial + view.waiting()
        if not (view.decode and (view.partial or (view.queued and view.seats))):
            self._stalled = 0  # nobody to stall, or nobody who could
        elif self._stalled == self._patience:
            self._stalled = 0
            return Choice([view.decode, prompts])
        else:
            self._stalled += 1
        return Choice([prompts, view.decode])


class Gathered(Continuous):
    """As continuous, but newcomers are seated together: when they would fill one in `part` of the seats, or after
    `patience` launches.

    A launch with a prompt in it is packed and launched by the host, one without is a replay (runner/graphs.py), so on a
    GPU prompts should share launches: 1.7 ms against 8.5 at 159 rows of GPT-2 124M (records/2026-11-26-steps-h100).
    """

    def __init__(self, part: int = 16, patience: int = 8) -> None:
        self._part, self._patience, self._held = part, patience, 0

    @staticmethod
    def of(options: BatchingOptions) -> Gathered:  # noqa: ARG004
        return Gathered()

    def groups(self, view: View, now_ns: int) -> Choice:
        coming, share = min(view.queued, view.seats), (view.running + view.seats) // self._part
        decodes_alone = view.decode and not view.partial
        if decodes_alone and coming < share and self._held < self._patience:
            self._held += coming > 0
            return Choice([view.decode], gathers=True)
        self._held = 0
        return super().groups(view, now_ns)


class Static:
    """A batch takes whoever waits when the device is free, up to its size, and runs to its last end.

    It waits for nobody: a batch that insisted on its full size would keep a lone request for ever. For batches that
    only slots and blocks may cut, the step's budget must be at least max_batch times the longest sequence.
    """

    divisible = False

    def __init__(self, max_batch: int) -> None:
        if max_batch < 1:
            raise ConfigError(f"a batch of at most {max_batch} can never start")
        self.max_batch = max_batch

    @staticmethod
    def of(options: BatchingOptions) -> Static:
        return Static(options.max_batch_size)

    def groups(self, view: View, now_ns: int) -> Choice:  # noqa: ARG002
        if view.running:
            return Choice([view.decode + view.partial])
        return Choice([view.waiting(self.max_batch)], closed="ready")


class OneAtATime(Static):
    """The next request starts when the last one has ended."""

    def __init__(self) -> None:
        super().__init__(max_batch=1)

    @staticmethod
    def of(options: BatchingOptions) -> OneAtATime:  # noqa: ARG004
        return OneAtATime()


class Dynamic(Static):
    """As static, but a batch that is not full waits for company until its oldest member has waited for the window.

    The window opens when the oldest waiting request arrives, also while another batch runs.
    """

    def __init__(self, window_ns: int, max_batch: int) -> None:
        super().__init__(max_batch)
        if window_ns < 0:
            raise ConfigError(f"a window of {window_ns} ns can never close")
        self.window_ns = window_ns

    @staticmethod
    def of(options: BatchingOptions) -> Dynamic:
        return Dynamic(round(options.batch_window_ms * 1e6), options.max_batch_size)

    def groups(self, view: View, now_ns: int) -> Choice:
        if view.running:
            return Choice([view.decode + view.partial])
        if view.queued >= self.max_batch:
            return Choice([view.waiting(self.max_batch)], closed="full")
        if not view.queued:
            return Choice([])
        wake_ns = view.oldest_ns + self.window_ns
        return Choice([view.waiting()], closed="window") if now_ns >= wake_ns else Choice([], wake_ns)
