"""Paged attention for a GPU: head-major pages, one call for rows of one query and one for all others.

Knows pages and rows. How they are computed is the operations' affair (ops/paged.py): kernels on a GPU, plain torch
everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ridgeline.attention.base import CannotAttend, score_scale
from ridgeline.attention.batch import Batch, Mixed
from ridgeline.core.spec import ModelSpec
from ridgeline.device.base import Device
from ridgeline.ops.gemv import has_float8
from ridgeline.ops.lazy import is_triton
from ridgeline.ops.paged import PagedOps, paged_ops
from ridgeline.ops.paged_decode import Singles
from ridgeline.ops.paged_prefill import Spans
from ridgeline.ops.pages import SCALED, Pages, bytes_per_token

MOST_DIM = 256
"""Values of a head at most: a kernel keeps a tile of them in registers."""


@dataclass(frozen=True, slots=True)
class PagedMeta:
    """singles: rows with one query; spans: the others, whose keys and values go to `writes` first."""

    singles: Singles | None
    spans: Spans | None
    writes: Tensor | None


class PagedStore:
    """Pages of every layer; the last block is for padding."""

    def __init__(self, spec: ModelSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device):
        self.layers = [
            Pages.make(num_blocks + 1, spec.heads, block_size, spec.head_dim, dtype, device) for _ in range(spec.layers)
        ]

    def read(self, layer: int, block_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        pages = self.layers[layer]
        keys, values = pages.read(torch.tensor(list(block_ids), device=pages.values.device))
        return keys.transpose(1, 2).flatten(0, 1), values.transpose(1, 2).flatten(0, 1)


class Paged:
    """Blocks are read in place by Triton kernels on a GPU, once a step; elsewhere by plain torch, for tests.

    ops: None: the fastest for the device. window: positions that a query attends at most.
    """

    reads_contexts = True
    row_invariant = False
    """A query is computed differently alone than in a chunk."""
    prefers = 64
    """Tokens in a block: 8 KiB a head in 16 bits, and a table entry is looked up once for them."""

    def __init__(self, ops: PagedOps | None = None, window: int | None = None) -> None:
        self._given, self._window = ops, window

    @staticmethod
    def open(spec: ModelSpec, dtype: torch.dtype, device: Device, cache: Path | None) -> Paged:  # noqa: ARG004
        on_gpu = device.torch_device.type == "cuda"
        if spec.head_dim > MOST_DIM:
            raise CannotAttend(
                f"paged attention takes heads of up to {MOST_DIM} values; this model's have {spec.head_dim}"
            )
        if on_gpu and not is_triton(device):
            raise CannotAttend("paged attention needs Triton, which is not installed")
        if dtype is torch.float8_e4m3fn and not has_float8(device.torch_device):
            raise CannotAttend("this GPU does not compute with 8-bit floats; int8 takes as much memory")
        return Paged()

    @staticmethod
    def open_soon(spec: ModelSpec, dtype: torch.dtype, device: Device, cache: Path | None) -> Paged:
        """Where Triton compiles, and the cache has no scales: plain torch attends until kernels are taken."""
        from ridgeline.attention.paged_soon import PagedSoon

        opened = Paged.open(spec, dtype, device, cache)
        return PagedSoon() if is_triton(device) and dtype not in SCALED else opened

    def allows(self, block_size: int) -> bool:
        return block_size >= 1

    def block_bytes(self, spec: ModelSpec, block_size: int, dtype: torch.dtype) -> int:
        return spec.layers * block_size * bytes_per_token(spec.heads, spec.head_dim, dtype)

    def scale_bits(self, dtype: torch.dtype) -> int:
        return 16 if dtype in SCALED else 0

    def store(
        self, spec: ModelSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: Device
    ) -> PagedStore:
        self._ops = self._given or paged_ops(device)
        self._upload = device.upload
        self._scales = [score_scale(spec, layer) for layer in range(spec.layers)]
        self._store = PagedStore(spec, num_blocks, block_size, dtype, device.torch_device)
        return self._store

    def plan(self, batch: Batch, into: PagedMeta | None = None) -> PagedMeta:
        assert into is None, "a step that is captured is planned by plan_steady"
        counts = np.diff(batch.query_starts)
        single, many = np.flatnonzero(counts == 1), np.flatnonzero(counts > 1)
        facts = np.stack((batch.query_starts[many], batch.query_starts[many + 1], batch.starts[many],
                          batch.contexts[many]), axis=1)  # fmt: skip
        tiles = -(-counts[many] // self._ops.tile)
        owner = np.repeat(np.arange(len(many)), tiles)
        nth = np.arange(len(owner)) - np.repeat(tiles.cumsum() - tiles, tiles)
        # One upload for all: each costs the host of a GPU as much as several operations.
        tokens, contexts, single_at, many_at, facts_at, tiles_at = self._upload(
            [
                batch.query_starts[single], batch.contexts[single], single, many, facts,
                np.stack((owner, nth * self._ops.tile), axis=1),
            ]
        )  # fmt: skip
        if not len(many):
            return PagedMeta(Singles(batch.block_tables, contexts, tokens), None, None)
        spans = Spans(facts_at, tiles_at, batch.block_tables[many_at])
        singles = Singles(batch.block_tables[single_at], contexts, tokens) if len(single) else None
        return PagedMeta(singles, spans, batch.writes)

    def plan_steady(self, block_tables: Tensor, contexts: Tensor) -> PagedMeta:
        """For a step in which every row has one query, in the order of the rows. block_tables: [rows, width] int32;
        contexts: [rows] int32 or int64, the new token included. Both stay where they are: the calls read what they
        hold when they run, so a captured step follows them. A row of nobody has the scratch block and any context that
        fits the table."""
        return PagedMeta(Singles(block_tables, contexts), None, None)

    @property
    def tile(self) -> int:
        return self._ops.tile

    def plan_mixed(self, given: Mixed) -> PagedMeta:
        singles = Singles(given.block_tables, given.singles, given.places)
        return PagedMeta(singles, Spans(given.facts, given.tiles, given.block_tables), given.writes)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, meta: PagedMeta) -> Tensor:
        pages, scale, ops = self._store.layers[layer], self._scales[layer], self._ops
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        if meta.writes is not None:
            ops.append(pages, k, v, meta.writes)
        if meta.singles is not None:
            ops.decode(q, k, v, out, pages, meta.singles, scale, self._window)
        if meta.spans is not None:
            ops.prefill(q, out, pages, meta.spans, scale, self._window)
        return out
