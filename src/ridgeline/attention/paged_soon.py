"""Paged attention whose kernels are still being compiled: PyTorch's attention over the same pages until they are taken.

What attends changes between two steps, and with it rounding: this is for servers that promise nothing about the last
bits. Knows no compiler, and no request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ridgeline.attention.batch import Batch
from ridgeline.attention.paged import Paged, PagedMeta, PagedStore
from ridgeline.attention.reference import Reference, ReferenceMeta
from ridgeline.core.spec import ModelSpec
from ridgeline.device.base import Device
from ridgeline.ops.pages import KEYS, VALUES, Pages, append


class Gathered(Reference):
    """The reference over the pages of somebody else."""

    def __init__(
        self, layers: Sequence[Pages], spec: ModelSpec, block_size: int, dtype: torch.dtype, device: Device
    ) -> None:
        super().__init__()
        self._prepare(spec, block_size, dtype, device)
        self._layers = layers

    def _write(self, layer: int, at: Tensor, k: Tensor, v: Tensor) -> None:
        append(self._layers[layer], k, v, at)

    def _gather(self, kind: Literal["keys", "values"], layer: int, blocks: Tensor, rows: int, length: int) -> Tensor:
        part = self._layers[layer].values[:, KEYS if kind == "keys" else VALUES]
        found = part[blocks.long()].view(rows, -1, *part.shape[1:])  # [rows, blocks, heads, block_size, head_dim]
        gathered: Tensor = found.transpose(1, 2).flatten(2, 3)[:, :, :length]
        return gathered.to(self._work)


class PagedSoon(Paged):
    """As Paged from `take` on. Formats with scales are not for it."""

    _taken = False

    def store(
        self, spec: ModelSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: Device
    ) -> PagedStore:
        store = super().store(spec, num_blocks, block_size, dtype, device)
        for pages in store.layers:
            pages.values.zero_()  # what is masked is still multiplied by 0, and untouched memory may hold a NaN
        self._meanwhile = Gathered(store.layers, spec, block_size, dtype, device)
        return store

    def take(self) -> None:
        """Between two steps: the kernels are there."""
        self._taken = True

    def plan(self, batch: Batch, into: PagedMeta | None = None) -> PagedMeta | ReferenceMeta:  # type: ignore[override]
        return super().plan(batch, into) if self._taken else self._meanwhile.plan(batch)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, meta: PagedMeta | ReferenceMeta) -> Tensor:
        if isinstance(meta, ReferenceMeta):
            return self._meanwhile(layer, q, k, v, meta)
        return super().__call__(layer, q, k, v, meta)
