"""Scores: log-probabilities of a launch's tokens, from the device to the host. Knows slots; knows no request.

A scored position is a row of 32-bit words, [token, value, ids, values]: one download brings all of a launch. The values
are floats, sent as their bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ridgeline.attention.batch import Batch
from ridgeline.core.types import MAX_LOGPROBS, Ints, Plan, Scores, Tokens
from ridgeline.device.base import Download
from ridgeline.ops.score import score
from ridgeline.runner.asks import NOT_ASKED
from ridgeline.runner.memory import SCORE_ROWS, TURNS
from ridgeline.runner.slots import SlotTables


@dataclass(frozen=True, slots=True)
class Words:
    """Scored positions on their way. owners: the row of the launch that each belongs to; of one row they are in order.
    firsts: for every row of the launch, the place in its sequence of its first token here."""

    prompt: bool
    owners: Ints
    firsts: Ints
    words: Download

    def scores(self, counts: Ints) -> list[Scores]:
        """counts: for every row of the launch how many positions count; the first ones do."""
        words: Tokens = self.words.result()
        order = np.argsort(self.owners, kind="stable")
        rows, begins = np.unique(self.owners[order], return_index=True)
        parts = np.split(order, begins[1:])
        return [
            self._of(row, words[part[: counts[row]]])
            for row, part in zip(rows.tolist(), parts, strict=True)
            if counts[row]
        ]

    def _of(self, row: int, words: Tokens) -> Scores:
        token, value, ids, values = np.split(words, [1, 2, 2 + (words.shape[1] - 2) // 2], axis=1)
        return Scores(
            owner=row,
            prompt=self.prompt,
            first=int(self.firsts[row]),
            tokens=token[:, 0].copy(),
            values=value.copy().view(np.float32)[:, 0],
            top_ids=ids.copy(),
            top_values=values.copy().view(np.float32),
        )


@dataclass(frozen=True, slots=True)
class Picked:
    """Some rows of a download."""

    whole: Download
    at: Ints

    def result(self) -> Tokens:
        words: Tokens = self.whole.result()
        return words.reshape(-1, words.shape[-1])[self.at]


class ScoreRing:
    """Where captured steps leave the scores of what they made, beside the tokens in a Ring. Every row is scored, with
    as many of the likeliest tokens as anybody may ask for."""

    def __init__(self, most_seats: int, vocab: int, where: torch.device) -> None:
        self._width = 2 + 2 * min(MAX_LOGPROBS, vocab)
        self._words = torch.zeros(TURNS * most_seats * self._width, dtype=torch.int32, device=where)

    def write(self, logits: Tensor, chosen: Tensor, turn: Tensor) -> None:
        """logits: [seats, vocab]; chosen: [seats]; turn: [1], the place of this step."""
        words = [_scored(logits[piece], chosen[piece], MAX_LOGPROBS) for piece in _pieces(len(chosen))]
        self._of(len(chosen)).index_copy_(0, turn, torch.cat(words)[None])

    def made(self, plan: Plan, tables: SlotTables, first: int, turns: int, seats: int) -> Words:
        """What the plan's rows asked for, of so many steps. To be called before the next launch."""
        (asking,) = np.nonzero(tables.asks.logprobs[plan.rows] > NOT_ASKED)
        at = (np.arange(turns)[:, None] * seats + asking).ravel()
        words = tables.device.download(self._of(seats)[first : first + turns])
        return Words(False, np.tile(asking, turns), plan.starts + plan.counts, Picked(words, at))

    def _of(self, seats: int) -> Tensor:
        return self._words[: TURNS * seats * self._width].view(TURNS, seats, self._width)


class Scoring:
    """The scores of one launch in the making: `prompt` once, `made` after every iteration, `sent` at the end."""

    def __init__(self, plan: Plan, tables: SlotTables, to_logits: Callable[[Tensor], Tensor]) -> None:
        self._plan, self._tables, self._to_logits = plan, tables, to_logits
        asked = tables.asks.logprobs[plan.rows]
        self._asks = asked > NOT_ASKED
        self._most = int(asked.max())
        self._owners: list[Ints] = []
        self._made: list[Tensor] = []
        self._prompt: Words | None = None

    def prompt(self, batch: Batch, hidden: Tensor) -> None:
        """Score the prompts' tokens that follow the positions of this launch. hidden: [N, d_model].

        Once while a request sits in its slot, though without a cache all positions are computed at every step.
        """
        plan, tables, asks = self._plan, self._tables, self._tables.asks
        asked = asks.prompt_logprobs[plan.rows]
        begins = np.maximum(plan.starts, asks.scored[plan.rows])
        # The last token of a prompt is followed by output, and the first follows nothing.
        ends = np.minimum(plan.starts + plan.counts, asks.prompts[plan.rows] - 1)
        counts = np.where(asked > NOT_ASKED, np.maximum(ends - begins, 0), 0)
        if not counts.any():
            return
        asks.scored[plan.rows] = begins + counts
        owners = np.repeat(np.arange(len(counts)), counts)
        offsets = np.arange(len(owners)) - np.repeat(counts.cumsum() - counts, counts)
        positions = begins[owners] + offsets
        places = batch.query_starts[owners] + positions - plan.starts[owners]
        at, slots, following = tables.device.upload([places, plan.rows[owners], positions + 1])
        tokens = tables.tokens[slots, following].to(torch.int64)
        words = [
            _scored(self._to_logits(hidden[at[piece]]), tokens[piece], int(asked.max()))
            for piece in _pieces(len(owners))
        ]
        self._prompt = Words(True, owners, begins + 1, tables.device.download(torch.cat(words)))

    def made(self, rows: Ints, logits: Tensor, chosen: Tensor) -> None:
        """Score what an iteration chose. rows: of the launch, on the host; logits: [rows, vocab]; chosen: [rows]."""
        asking = np.flatnonzero(self._asks[rows])
        if not len(asking):
            return
        (at,) = self._tables.device.upload([asking])
        for piece in _pieces(len(asking)):
            self._made.append(_scored(logits[at[piece]], chosen[at[piece]], self._most))
        self._owners.append(rows[asking])

    def sent(self) -> tuple[Words | None, Words | None]:
        """Of the prompts and of the output; None where nobody asked."""
        if not self._made:
            return self._prompt, None
        firsts = self._plan.starts + self._plan.counts
        words = self._tables.device.download(torch.cat(self._made))
        return self._prompt, Words(False, np.concatenate(self._owners), firsts, words)


def collected(prompt: Words | None, output: Words | None, counts: Ints) -> tuple[Scores, ...]:
    """counts: tokens that each row of the launch made; what it chose after its end is not reported."""
    found: list[Scores] = []
    if prompt is not None:
        found += prompt.scores(np.bincount(prompt.owners, minlength=len(counts)))
    if output is not None:
        found += output.scores(counts)
    return tuple(found)


def _scored(logits: Tensor, tokens: Tensor, most: int) -> Tensor:
    """[positions, 2 + 2 * most] int32."""
    values, ids, tops = score(logits, tokens, most)
    integers = tokens[:, None].to(torch.int32), ids.to(torch.int32)
    return torch.cat((integers[0], values[:, None].view(torch.int32), integers[1], tops.view(torch.int32)), -1)


def _pieces(count: int) -> list[slice]:
    """SCORE_ROWS positions at once, because a position's log-probabilities are as wide as the vocabulary."""
    return [slice(first, first + SCORE_ROWS) for first in range(0, count, SCORE_ROWS)]
