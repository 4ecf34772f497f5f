"""Sampler: from logits to one token a row, as each slot asks. Knows slot tables; knows no request."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ridgeline.core.types import Bools, Ints
from ridgeline.ops.penalty import add_bias, penalize
from ridgeline.ops.sample import forbid, greedy, likeliest, sample, sample_cut
from ridgeline.runner.memory import SAMPLE_ROWS
from ridgeline.runner.slots import SlotTables

Choose = Callable[[Tensor, Ints], Tensor]
"""(logits [rows, vocab], slots [rows] on the host) -> tokens [rows] int64."""


class Sampler:
    """Rows whose logits change, and rows that draw, are told apart on the host; SAMPLE_ROWS of them at once.

    Everything is computed from the slot tables as they are when the step runs, so launches that overlap see each
    other's tokens, and a request that comes back after preemption is treated as if it had stayed.
    """

    def __init__(self, tables: SlotTables, likeliest: Callable[[Tensor], Tensor] = likeliest) -> None:
        """likeliest: as ops.sample.greedy."""
        self._tables, self._likeliest = tables, likeliest

    def __call__(self, logits: Tensor, slots: Ints) -> Tensor:
        """logits: [rows, vocab]; slots: [rows], on the host. Returns tokens [rows] int64."""
        asks = self._tables.asks
        chosen = self._likeliest(logits)  # in any format the same
        draws = asks.draws[slots]
        for rows in _portions(draws):
            (at,) = self._tables.device.upload([rows])
            chosen[at] = self._draw(self._changed(logits[at].to(torch.float32), slots[rows]), slots[rows])
        for rows in _portions(asks.changes[slots] & ~draws):
            (at,) = self._tables.device.upload([rows])
            chosen[at] = self._likeliest(self._changed(logits[at].to(torch.float32), slots[rows]))
        return chosen

    def _changed(self, logits: Tensor, slots: Ints) -> Tensor:
        """The logits after penalties, biases and stop tokens that may not come yet, in this order. May write them."""
        asks = self._tables.asks
        for change, asked in (
            (_penalized, asks.penalizes[slots]),
            (_biased, asks.biases[slots]),
            (_without_stops, asks.forbids[slots]),
        ):
            rows = np.flatnonzero(asked)
            if len(rows):
                at, row_slots = self._tables.device.upload([rows, slots[rows]])
                logits[at] = change(self._tables, logits[at], row_slots)
        return logits

    def _draw(self, logits: Tensor, slots: Ints) -> Tensor:
        tables, asks = self._tables, self._tables.asks
        (row_slots,) = tables.device.upload([slots])
        top_k = asks.top_k[slots]
        widest = int(np.where(top_k < logits.shape[-1], top_k, 0).max())
        return sample(
            logits,
            tables.temperature[row_slots],
            _uniforms(tables, row_slots),
            tables.top_k[row_slots] if widest else None,
            tables.top_p[row_slots] if asks.cuts_p[slots].any() else None,
            tables.min_p[row_slots] if asks.cuts_min_p[slots].any() else None,
            widest=widest,
        )


def draw_or_greedy(tables: SlotTables, logits: Tensor, slots: Tensor) -> Tensor:
    """logits: [rows, vocab]; slots: [rows], on the device. For rows of which some draw from the whole distribution, and
    all others take the likeliest; which, the device knows. Tokens [rows] int64."""
    return _by_portions(_drawn_or_greedy, tables, logits, slots)


def choose_shaped(tables: SlotTables, logits: Tensor, slots: Tensor) -> Tensor:
    """The same for rows that may want anything of their distribution. All rows pay for what one asks: what changes
    nothing is computed too, because only the device knows."""
    return _by_portions(_shaped, tables, logits, slots)


def _by_portions(
    choose: Callable[[SlotTables, Tensor, Tensor], Tensor], tables: SlotTables, logits: Tensor, slots: Tensor
) -> Tensor:
    portions = zip(torch.split(logits, SAMPLE_ROWS), torch.split(slots, SAMPLE_ROWS), strict=True)
    chosen = [choose(tables, *portion) for portion in portions]
    return chosen[0] if len(chosen) == 1 else torch.cat(chosen)


def _drawn_or_greedy(tables: SlotTables, logits: Tensor, slots: Tensor) -> Tensor:
    temperature = tables.temperature[slots]
    drawn = sample(logits, temperature, _uniforms(tables, slots))
    return torch.where(temperature > 0, drawn, greedy(logits))


def _shaped(tables: SlotTables, logits: Tensor, slots: Tensor) -> Tensor:
    logits = _penalized(tables, logits.to(torch.float32), slots)
    logits = _without_stops(tables, _biased(tables, logits, slots), slots)
    temperature = tables.temperature[slots]
    drawn = sample_cut(
        logits, temperature, _uniforms(tables, slots), tables.top_k[slots], tables.top_p[slots], tables.min_p[slots]
    )
    return torch.where(temperature > 0, drawn, greedy(logits))


def _uniforms(tables: SlotTables, slots: Tensor) -> Tensor:
    """Of the position that each slot fills next."""
    return tables.uniforms[slots, tables.lengths[slots].clamp(max=tables.sizes.max_len - 1)]


def _penalized(tables: SlotTables, logits: Tensor, slots: Tensor) -> Tensor:
    return penalize(
        logits, tables.tokens[slots], tables.lengths[slots], tables.prompts[slots], tables.repetition[slots],
        tables.presence[slots], tables.frequency[slots],
    )  # fmt: skip


def _biased(tables: SlotTables, logits: Tensor, slots: Tensor) -> Tensor:
    return add_bias(logits, tables.bias_ids[slots], tables.bias_values[slots])


def _without_stops(tables: SlotTables, logits: Tensor, slots: Tensor) -> Tensor:
    stop_ids = tables.stop_ids[slots]
    early = (tables.lengths[slots] - tables.prompts[slots] < tables.min_tokens[slots]) & (stop_ids[:, 0] >= 0)
    return torch.where(early[:, None], forbid(logits, stop_ids), logits)


def _portions(mask: Bools) -> list[Ints]:
    rows = np.flatnonzero(mask)
    return [rows[first : first + SAMPLE_ROWS] for first in range(0, len(rows), SAMPLE_ROWS)]
