"""Attention one query at a time: what a query gets depends on its position and on what it attends, and on nothing else.

The definition of row-invariant attention, in plain torch, for devices without a kernel that is. Keys and values are cut
into splits of 256 positions from the beginning of the sequence; each has a softmax of its own, and they are put
together in their order (Milakov and Gimelshein 2018). All shapes follow from the query's position, so a prompt's query
is computed like that of a decode step, in whatever chunk it comes. It is slow: every query is some 10 operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ridgeline.attention.base import score_scale
from ridgeline.attention.batch import Batch
from ridgeline.attention.reference import FLOAT16_MAX, PagedStore, Unscaled, refuse_scaled
from ridgeline.core.spec import ModelSpec
from ridgeline.device.base import Device

SPLIT = 256


@dataclass(frozen=True, slots=True)
class Row:
    """A sequence's queries, from `start` of the batch on. contexts: how many positions each attends."""

    start: int
    contexts: range
    blocks: Tensor


@dataclass(frozen=True, slots=True)
class ByRowMeta:
    writes: Tensor
    rows: tuple[Row, ...]


class ByRow(Unscaled):
    """One query at a time, in splits of 256 positions: bitwise the same in every batch, and slow; runs everywhere."""

    row_invariant = True
    prefers = 16

    @staticmethod
    def open(spec: ModelSpec, dtype: torch.dtype, device: Device, cache: Path | None) -> ByRow:  # noqa: ARG004
        refuse_scaled("attention by row", dtype)
        return ByRow()

    def store(
        self, spec: ModelSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: Device
    ) -> PagedStore:
        self._spec, self._block_size, self._dtype, where = spec, block_size, dtype, device.torch_device
        self._scales = [score_scale(spec, layer) for layer in range(spec.layers)]
        self._store = PagedStore(spec, num_blocks, block_size, dtype, where)
        # Of the longest sequence and whole splits of it; zeros, because what is masked is multiplied by 0.
        length = -(-spec.max_positions // SPLIT) * SPLIT
        shape = (spec.heads, length, spec.head_dim)
        self._keys, self._values = (torch.zeros(shape, device=where) for _ in range(2))
        self._query = torch.zeros((spec.heads, spec.head_dim, 1), device=where)
        self._at = torch.arange(length, device=where)
        return self._store

    def plan(self, batch: Batch, into: ByRowMeta | None = None) -> ByRowMeta:
        assert into is None, "nothing is captured here: shapes differ from step to step"
        rows: list[Row] = []
        for row, (first, context) in enumerate(zip(batch.starts.tolist(), batch.contexts.tolist(), strict=True)):
            blocks = batch.block_tables[row, : -(-context // self._block_size)]
            rows.append(Row(int(batch.query_starts[row]), range(first + 1, context + 1), blocks))
        return ByRowMeta(batch.writes, tuple(rows))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, meta: ByRowMeta) -> Tensor:
        self._store.write(layer, meta.writes, self._rounded(k), self._rounded(v))
        out = torch.zeros_like(q)  # padding gets none
        for row in meta.rows:
            self._gather(layer, row)
            for token, context in enumerate(row.contexts, row.start):
                out[token] = self._attend(q[token], context, self._scales[layer])
        return out

    def _rounded(self, x: Tensor) -> Tensor:
        """In the cache's format; what float16 cannot hold is cut to what it can."""
        x = x.to(self._dtype)
        return x if self._dtype is not torch.float16 else torch.nan_to_num(x, 0.0, FLOAT16_MAX, -FLOAT16_MAX)

    def _gather(self, layer: int, row: Row) -> None:
        """A sequence's keys and values, in float32 and by head. What lies beyond is of earlier calls, and masked."""
        length = min(row.contexts[-1], self._keys.shape[1])
        for cache, place in ((self._store.keys, self._keys), (self._store.values, self._values)):
            found = cache[layer][row.blocks].view(-1, self._spec.heads, self._spec.head_dim)[:length]
            place[:, :length] = found.transpose(0, 1)

    def _attend(self, q: Tensor, context: int, scale: float) -> Tensor:
        """q: [heads, head_dim], over the first `context` positions gathered. Returns [heads, head_dim]."""
        self._query[:, :, 0] = q
        splits = -(-context // SPLIT)
        length = splits * SPLIT
        scores = torch.bmm(self._keys[:, :length], self._query)[:, :, 0] * scale  # [heads, length]
        scores = scores.masked_fill(self._at[:length] >= context, float("-inf")).view(-1, splits, SPLIT)
        highest = scores.amax(-1, keepdim=True)  # [heads, splits, 1]
        weights = torch.exp(scores - highest)
        sums = weights.sum(-1)  # [heads, splits]
        values = self._values[:, :length].view(-1, splits, SPLIT, self._spec.head_dim)
        mixes = torch.matmul(weights[:, :, None], values)[:, :, 0]  # [heads, splits, head_dim]
        shares = torch.exp(highest[:, :, 0] - highest.amax(1))  # [heads, splits]
        total, mixed = shares[:, 0] * sums[:, 0], shares[:, :1] * mixes[:, 0]
        for split in range(1, splits):
            total = total + shares[:, split] * sums[:, split]
            mixed = mixed + shares[:, split : split + 1] * mixes[:, split]
        return mixed / total[:, None]
