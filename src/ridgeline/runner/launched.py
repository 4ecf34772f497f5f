"""Launched: plans in flight, and how their outputs are read. Knows arrays on the host; knows no model and no slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ridgeline.core.types import Ints, Output
from ridgeline.device.base import Download
from ridgeline.runner.scores import Words, collected


class Launched(Protocol):
    """A plan in flight."""

    def output(self) -> Output:
        """Waits for the device."""
        ...


@dataclass(frozen=True, slots=True)
class Packed:
    """A plan that was packed on the host. makers: for each iteration the rows that may make a token in it; computed:
    positions of each of them in the first one. made: [3, sum of makers] token, appended, is a stop id. prompt_scores,
    scores: log-probabilities, where somebody asked for them."""

    serial: int
    rows: int
    makers: list[Ints]
    computed: Ints
    made: Download
    prompt_scores: Words | None
    scores: Words | None
    positions: int
    padding: int

    def output(self) -> Output:
        made = self.made.result()
        counts = np.zeros(self.rows, np.int64)
        tokens = np.zeros((self.rows, len(self.makers)), np.int32)
        finished = np.zeros(self.rows, np.bool_)
        first = wasted = 0
        for turn, makers in enumerate(self.makers):
            chosen, appended, hit = made[:, first : first + len(makers)]
            first += len(makers)
            tokens[makers, turn] = chosen
            counts[makers] += appended
            finished[makers] |= hit > 0
            over = appended == 0  # stopped in an earlier iteration, or launch that was in flight
            wasted += int(self.computed[over].sum()) if turn == 0 else int(over.sum())
        scores = collected(self.prompt_scores, self.scores, counts)
        return Output(self.serial, counts, tokens, finished, self.positions, self.padding + wasted, scores)


@dataclass(frozen=True, slots=True)
class Replayed:
    """A plan of steady steps. made: [turns, 3, seats] token, appended, is a stop id; the plan's rows come first."""

    serial: int
    rows: int
    made: Download
    scores: Words | None = None

    def output(self) -> Output:
        made = self.made.result()
        turns, _, seats = made.shape
        chosen, appended, hit = made[:, :, : self.rows].transpose(1, 2, 0)  # [rows, turns] each
        counts = appended.sum(1, dtype=np.int64)  # a row appends until it is over, and never after
        positions = turns * seats
        padding = positions - int(counts.sum())
        scores = collected(None, self.scores, counts)
        return Output(self.serial, counts, chosen.copy(), (hit > 0).any(1), positions, padding, scores)


@dataclass(frozen=True, slots=True)
class ReplayedMixed:
    """A plan of one step of fixed shape. computed, promise: the plan's, by row. positions: of the shape. made: [1, 3,
    seats] as in Replayed; rows that are promised nothing append nothing."""

    serial: int
    computed: Ints
    promise: Ints
    positions: int
    made: Download
    scores: Words | None = None

    def output(self) -> Output:
        chosen, appended, hit = self.made.result()[0][:, : len(self.computed)]
        counts = appended.astype(np.int64)
        used = int(self.computed[(counts > 0) | (self.promise == 0)].sum())
        scores = collected(None, self.scores, counts)
        tokens = chosen[:, None].copy()
        return Output(self.serial, counts, tokens, hit > 0, self.positions, self.positions - used, scores)
