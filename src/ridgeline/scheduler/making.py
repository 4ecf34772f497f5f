"""A plan in the making, and what is remembered of it until it is collected. Knows no policy and no queue."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ridgeline.core.flight import NO_STALL
from ridgeline.core.types import NO_BLOCKS, Ints, Join
from ridgeline.kv.ledger import NOTHING
from ridgeline.scheduler.batches import Batch


@dataclass(slots=True)
class Making:
    """left: tokens of the budget. stepping: rows, starts and ones of the rows that compute one token together.

    slots, starts, counts, promise: of the rows that came one by one. chunks: those of them that compute more than one
    token. refused: somebody lacks a slot, blocks or budget, so nobody new is admitted. stall: what the first who has no
    part in it lacks, of core.flight.STALLS.
    """

    left: int
    now_ns: int
    stepping: tuple[Ints, Ints, Ints] | None = None
    slots: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    promise: list[int] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    blocks: list[Ints] = field(default_factory=list)
    joins: list[Join] = field(default_factory=list)
    refused: bool = False
    stall: int = NO_STALL
    preempted: bool = False

    @property
    def empty(self) -> bool:
        return self.stepping is None and not self.slots

    def refuse(self, stall: int) -> None:
        """Somebody has no part in this plan, and nobody new takes what they lack."""
        self.refused = True
        self.stall = self.stall or stall

    def add_steps(self, rows: Ints, starts: Ints, ones: Ints, blocks: Ints) -> None:
        self.stepping = rows, starts, ones
        self.left -= len(rows)
        self.extend(blocks)

    def add_span(self, slot: int, start: int, count: int, work: int, blocks: Ints) -> None:
        """work: what there was to do; a row that gets all of it reaches its end and makes a token."""
        self.slots.append(slot)
        self.starts.append(start)
        self.counts.append(count)
        self.promise.append(int(count == work))
        if work > 1:
            self.chunks.append(slot)
        self.left -= count
        self.extend(blocks)

    def extend(self, blocks: Ints) -> None:
        if blocks is not NOTHING:
            self.blocks.append(blocks)

    def granted(self) -> set[int]:
        return {*self.slots, *(self.stepping[0].tolist() if self.stepping is not None else ())}

    def columns(self) -> tuple[Ints, Ints, Ints, Ints]:
        """rows, starts, counts, promise."""
        if not self.slots:
            assert self.stepping is not None, "nothing was granted"
            rows, starts, ones = self.stepping
            return rows, starts, ones, ones
        steps = 0 if self.stepping is None else len(self.stepping[0])
        out = np.empty((4, steps + len(self.slots)), np.int64)
        if self.stepping is not None:
            out[0, :steps], out[1, :steps], out[2, :steps] = self.stepping
            out[3, :steps] = 1
        out[:, steps:] = self.slots, self.starts, self.counts, self.promise
        return out[0], out[1], out[2], out[3]

    def new_blocks(self) -> tuple[Ints, Ints, Ints]:
        if not self.blocks:
            return NO_BLOCKS
        slots, index, blocks = self.blocks[0] if len(self.blocks) == 1 else np.concatenate(self.blocks, axis=1)
        return slots, index, blocks


@dataclass(frozen=True, slots=True)
class Flight:
    """A launch that was not collected yet. chunks: slots with more than a decode step: worth publishing then.

    departures: how often a slot had been left when the plan was made; equal later means that all rows still live.
    keys, counts, phases, stall and horizon: as a recording has them. single: all rows decode one token.
    planned_ns: when.
    """

    serial: int
    rows: Ints
    keys: Ints
    counts: Ints
    phases: Ints
    stall: int
    horizon: int
    single: bool
    planned_ns: int
    seatings: Ints
    promise: Ints
    chunks: list[int]
    departures: int
    batch: Batch | None
