"""Recorded: decode steps on a CPU as one call of native code. What a captured graph is on a GPU.

The first step of a number of rows runs operation by operation and is recorded; those after it play the recording: what
differs from step to step (slots and positions) lies in two buffers, and native code looks up the rest. So a step's
operations cost the host microseconds and not a millisecond. Knows no kernel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ridgeline.attention.base import AnyAttention
from ridgeline.attention.native import Native as NativeAttention
from ridgeline.core.types import Plan
from ridgeline.device.recording import recording
from ridgeline.ops import steps
from ridgeline.runner.forward import Model
from ridgeline.runner.inputs import Packing
from ridgeline.runner.launched import Launched
from ridgeline.runner.sampler import Sampler
from ridgeline.runner.scores import Scoring
from ridgeline.runner.slots import SlotTables
from ridgeline.runner.turns import in_turns

MOST = 16
"""Recordings at a time: each keeps the activations of its rows."""


@dataclass(frozen=True, slots=True)
class Seated:
    """tokens, positions: [rows] int64, as a model sees a batch."""

    tokens: Tensor
    positions: Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """slots, positions: [rows] int64, what it begins with. logits: [rows, vocab], what it leaves."""

    slots: Tensor
    positions: Tensor
    logits: Tensor
    play: Callable[[], None]


class Recorded:
    """library: of ops.steps. Steps in which a row computes more than one token, or scores its prompt, go the other
    way."""

    def __init__(
        self, library: steps.Native, model: Model, attention: AnyAttention, tables: SlotTables, packing: Packing
    ) -> None:
        assert isinstance(attention, NativeAttention), type(attention).__name__
        self._library, self._model, self._attention, self._tables = library, model, attention, tables
        self._ragged = packing.ragged
        self._sampler = Sampler(tables, library.likeliest)
        self._steps: dict[int, Step] = {}
        self._refused: dict[int, str] = {}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of rows whose steps are played."""
        return tuple(self._steps)

    def launch(self, plan: Plan) -> Launched | None:
        if len(plan.rows) in self._refused or not self._ragged or not self._attention.ready:
            return None
        if not ((plan.counts == 1) & (plan.promise > 0)).all():
            return None
        scoring = Scoring(plan, self._tables, _no_prompts)
        made: Launched = in_turns(plan, self._tables, self._sampler, scoring, self._logits)
        return made

    def between(self) -> None:
        """Nothing is made ready."""

    def idle(self) -> bool:
        return False

    def rehearse(self) -> None:
        """The warm-up has launched steps."""

    def _logits(self, part: Plan, _first: bool) -> tuple[Tensor, int, int]:
        count = len(part.rows)
        step = self._steps.get(count)
        if step is None:
            return self._record(part), count, 0
        step.slots.numpy()[:], step.positions.numpy()[:] = part.rows, part.starts
        step.play()
        return step.logits, count, 0

    def _record(self, part: Plan) -> Tensor:
        """Run the step once, and keep what native code did."""
        slots, positions = torch.from_numpy(part.rows.copy()), torch.from_numpy(part.starts.copy())
        tables, attention = self._tables, self._attention
        with recording() as made:
            size = tables.sizes.block_size
            ids, writes = self._library.seat(tables.tokens, tables.blocks, size, slots, positions)
            meta = attention.plan_rows(slots, positions, writes, tables.blocks, tables.sizes.max_len)

            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                return attention(layer, q, k, v, meta)

            logits = self._model.logits(self._model.hidden(Seated(ids, positions), attend))
        if made.strangers:
            self._refuse(len(slots), made.strangers[0])
            return logits
        if len(self._steps) == MOST:
            del self._steps[next(iter(self._steps))]
        self._steps[len(slots)] = Step(slots, positions, logits, self._library.player(made))
        return logits

    def _refuse(self, rows: int, stranger: str) -> None:
        if not self._refused:
            logging.getLogger("ridgeline").info(
                "decode steps of %d rows run operation by operation: %s stands between native calls", rows, stranger
            )
        self._refused[rows] = stranger


def _no_prompts(_hidden: Any) -> Tensor:
    raise AssertionError("a step that makes a token of every row scores no prompt")
