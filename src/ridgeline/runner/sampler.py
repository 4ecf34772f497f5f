"""Sampler: from logits to one token a row, as each slot asks. Knows slot tables; knows no request."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ridgeline.core.types import Ints
from ridgeline.ops.sample import forbid, greedy, sample
from ridgeline.runner.slots import SlotTables

SAMPLE_ROWS = 32
"""Rows sampled at once: bounds the working memory (about 1.2 MB a row at a vocabulary of 50 thousand)."""


class Sampler:
    """Rows that are greedy, that sample, and that may not stop yet are told apart on the host, by slot."""

    def __init__(self, tables: SlotTables) -> None:
        self._tables = tables

    def __call__(self, logits: Tensor, slots: Ints) -> Tensor:
        """logits: [rows, vocab]; slots: [rows], on the host. Returns tokens [rows] int64."""
        logits = logits.to(torch.float32)
        held = np.flatnonzero(self._tables.forbids[slots])
        if len(held):
            logits = self._without_stops(logits, slots, held)
        chosen = greedy(logits)
        drawing = np.flatnonzero(self._tables.samples[slots])
        for first in range(0, len(drawing), SAMPLE_ROWS):
            rows = drawing[first : first + SAMPLE_ROWS]
            at, row_slots = self._tables.device.upload([rows, slots[rows]])
            chosen[at] = self._draw(logits[at], row_slots)
        return chosen

    def _without_stops(self, logits: Tensor, slots: Ints, rows: Ints) -> Tensor:
        tables = self._tables
        at, row_slots = tables.device.upload([rows, slots[rows]])
        early = tables.lengths[row_slots] - tables.prompts[row_slots] < tables.min_tokens[row_slots]
        some = logits[at]
        logits = logits.clone()
        logits[at] = torch.where(early[:, None], forbid(some, tables.stop_ids[row_slots]), some)
        return logits

    def _draw(self, logits: Tensor, slots: Tensor) -> Tensor:
        tables = self._tables
        at = tables.lengths[slots].clamp(max=tables.sizes.max_len - 1)
        return sample(
            logits, tables.temperature[slots], tables.top_k[slots], tables.top_p[slots], tables.uniforms[slots, at]
        )
