"""Reference attention: gather the cached blocks, then PyTorch's own attention. Runs everywhere, defines the others.

Rows with one query are computed together in groups: a group's keys and values are gathered (and widened where the cache
has 16 bits) into a buffer that stays in the cache of a CPU. Rows with more queries are computed one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.attention.base import CannotAttend, score_scale
from ridgeline.attention.batch import Batch
from ridgeline.core.spec import ModelSpec
from ridgeline.core.types import Ints
from ridgeline.device.base import Device

# 8 rows at context 192, 12 heads of 64, 2 cores of Zen 3: 2.3 ms a layer for 32 rows. One group of all took 5.1, one
# row at a time 3.3; the buffers (9 MB in float32) then fit the 32 MB of L3.
CPU_GROUP_TOKENS = 1536
GPU_GROUP_TOKENS = 16384
FLOAT16_MAX = 65504.0


@dataclass(frozen=True, slots=True)
class Single:
    """Rows with one query each. tokens: where their queries are, None: they are the whole batch, in order; blocks:
    their tables, cut to `length` positions."""

    tokens: Tensor | None
    blocks: Tensor
    length: int
    mask: Tensor | None  # [rows, 1, 1, length], to be added to the scores


@dataclass(frozen=True, slots=True)
class Span:
    """A row with queries [start, stop) over `context` positions, or only over itself if there is nothing before it."""

    start: int
    stop: int
    blocks: Tensor
    context: int
    mask: Tensor | None  # [queries, context]; None: the row's own positions are all there is


@dataclass(frozen=True, slots=True)
class ReferenceMeta:
    writes: Tensor
    singles: tuple[Single, ...]
    spans: tuple[Span, ...]


class PagedStore:
    """Keys and values of each layer, [blocks + 1, block_size * heads * head_dim]; the last block is for padding."""

    def __init__(self, spec: ModelSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device):
        self.spec, self.block_size = spec, block_size
        shape = (num_blocks + 1, block_size * spec.d_model)
        self.keys = [_zeros(shape, dtype, device) for _ in range(spec.layers)]
        self.values = [_zeros(shape, dtype, device) for _ in range(spec.layers)]

    def write(self, layer: int, at: Tensor, k: Tensor, v: Tensor) -> None:
        """k, v: [tokens, heads, head_dim] in the store's format; at: [tokens]."""
        width = self.spec.d_model
        self.keys[layer].view(-1, width).index_copy_(0, at, k.reshape(-1, width))
        self.values[layer].view(-1, width).index_copy_(0, at, v.reshape(-1, width))

    def read(self, layer: int, block_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        at = torch.tensor(list(block_ids), device=self.keys[layer].device)
        shape = (-1, self.spec.heads, self.spec.head_dim)
        return self.keys[layer][at].view(shape), self.values[layer][at].view(shape)


def _zeros(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros, because what is masked is still multiplied by 0, and memory that nobody wrote may hold a NaN.

    On a CPU from numpy, which asks the kernel for pages that are zero when first touched; torch would write every one
    of them now: 4.8 s and 4.3 GB at the start for a cache that the demo model hardly uses.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros((shape[0], shape[1] * dtype.itemsize), np.uint8)).view(dtype)


class Unscaled:
    """What all backends have in common that keep a PagedStore."""

    def allows(self, block_size: int) -> bool:
        return block_size >= 1

    def block_bytes(self, spec: ModelSpec, block_size: int, dtype: torch.dtype) -> int:
        return block_size * spec.kv_bytes_per_token(dtype.itemsize)

    def scale_bits(self, dtype: torch.dtype) -> int:  # noqa: ARG002
        return 0


def refuse_scaled(who: str, dtype: torch.dtype) -> None:
    """Raises CannotAttend for a cache of 8 bits, integers or floats."""
    if dtype.itemsize == 1:
        raise CannotAttend(f"{who} keeps no scales, which a cache of 8 bits needs")


class Reference(Unscaled):
    """Blocks are gathered and given to PyTorch's own attention; runs everywhere.

    group_tokens: cached positions that a group of single queries gathers at most.
    """

    row_invariant = False
    prefers = 16
    """PyTorch's own cuts its sums by what it is given: lengths, masks and how many rows lie together."""
    reads_contexts = False

    def __init__(self, group_tokens: int | None = None) -> None:
        self._group_tokens = group_tokens

    @staticmethod
    def open(spec: ModelSpec, dtype: torch.dtype, device: Device, cache: Path | None) -> Reference:  # noqa: ARG004
        refuse_scaled("the reference", dtype)
        return Reference()

    def store(
        self, spec: ModelSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: Device
    ) -> PagedStore:
        self._prepare(spec, block_size, dtype, device)
        self._store = PagedStore(spec, num_blocks, block_size, dtype, self._device)
        return self._store

    def _prepare(self, spec: ModelSpec, block_size: int, dtype: torch.dtype, device: Device) -> None:
        self._spec, self._block_size, self._dtype = spec, block_size, dtype
        self._upload, self._device = device.upload, device.torch_device
        on_cpu = self._device.type == "cpu"
        self._sdpa: Callable[..., Tensor] = functional.scaled_dot_product_attention if on_cpu else without_cudnn
        # PyTorch's attention in bfloat16 on a CPU is 5 to 7 times slower than in float32.
        self._work = torch.float32 if on_cpu else dtype
        self._capacity = self._group_tokens or (CPU_GROUP_TOKENS if on_cpu else GPU_GROUP_TOKENS)
        self._scales = [score_scale(spec, layer) for layer in range(spec.layers)]
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def plan(self, batch: Batch, into: ReferenceMeta | None = None) -> ReferenceMeta:
        assert into is None, "the reference is not captured: its shapes differ from step to step"
        counts = np.diff(batch.query_starts)
        single = np.flatnonzero(counts == 1)
        spans = [self._span(batch, row) for row in np.flatnonzero(counts > 1).tolist()]
        return ReferenceMeta(batch.writes, tuple(self._singles(batch, single)), tuple(spans))

    def plan_steady(self, block_tables: Tensor, contexts: Tensor) -> ReferenceMeta:
        """Whole tables are gathered and masked, because how much of them counts is not known here."""
        last, size = contexts.to(torch.int64) - 1, self._block_size
        blocks = block_tables.gather(1, (last // size)[:, None])[:, 0]
        rows, width = block_tables.shape
        beyond = torch.arange(width * size, device=self._device) > last[:, None]
        masks = self._mask(beyond)[:, None, None, :]
        every = torch.arange(rows, device=self._device)
        most = max(1, self._capacity // (width * size))
        singles = [
            Single(every[at], block_tables[at].reshape(-1), width * size, masks[at])
            for at in (slice(first, first + most) for first in range(0, rows, most))
        ]
        return ReferenceMeta(blocks.to(torch.int64) * size + last % size, tuple(singles), ())

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, meta: ReferenceMeta) -> Tensor:
        # Rounded before use, so that a prompt in chunks sees the same keys as a whole one.
        k, v = self._rounded(k), self._rounded(v)
        self._write(layer, meta.writes, k, v)
        out = torch.empty_like(q)
        for single in meta.singles:
            if single.tokens is None:
                return self._attend_single(layer, q, single).to(q.dtype)
            out[single.tokens] = self._attend_single(layer, q[single.tokens], single).to(q.dtype)
        for span in meta.spans:
            at = slice(span.start, span.stop)
            out[at] = self._attend_span(layer, q[at], k[at], v[at], span).to(q.dtype)
        return out

    def _rounded(self, x: Tensor) -> Tensor:
        """In the cache's format. What float16 cannot hold is cut to what it can: an infinity left in a block would
        reach its next owner, since what is masked is still multiplied by 0."""
        x = x.to(self._dtype)
        return x if self._dtype is not torch.float16 else torch.nan_to_num(x, 0.0, FLOAT16_MAX, -FLOAT16_MAX)

    def _singles(self, batch: Batch, rows: Ints) -> list[Single]:
        """One upload for all groups: on a GPU each costs the host as much as several operations."""
        if not len(rows):
            return []
        whole = len(rows) == len(batch.contexts) and len(rows) * self._reach(batch.max_context) <= self._capacity
        groups = [rows] if whole else self._groups(batch, rows)
        order = np.concatenate(groups)
        sizes = [len(group) for group in groups]
        parts = self._upload([order, batch.query_starts[order], batch.contexts[order]])  # each [rows]
        singles: list[Single] = []
        for group, at, tokens, ends in zip(groups, *(torch.split(part, sizes) for part in parts), strict=True):
            contexts = batch.contexts[group]
            length, mask = int(contexts.max()), None
            if (contexts < length).any():
                beyond = torch.arange(length, device=self._device) >= ends[:, None]
                mask = self._mask(beyond)[:, None, None, :]  # [rows, 1, 1, length]
            blocks = batch.block_tables[at, : -(-length // self._block_size)].reshape(-1)
            singles.append(Single(None if whole else tokens, blocks, length, mask))
        return singles

    def _groups(self, batch: Batch, rows: Ints) -> list[Ints]:
        """Longest context first, so that a group pads little."""
        order = rows[np.argsort(-batch.contexts[rows], kind="stable")]
        groups: list[Ints] = []
        while len(order):
            count = max(1, self._capacity // self._reach(int(batch.contexts[order[0]])))
            groups.append(order[:count])
            order = order[count:]
        return groups

    def _reach(self, context: int) -> int:
        """Positions that are gathered for a row, whole blocks."""
        return -(-context // self._block_size) * self._block_size

    def _span(self, batch: Batch, row: int) -> Span:
        start, stop = int(batch.query_starts[row]), int(batch.query_starts[row + 1])
        context = int(batch.contexts[row])
        blocks = batch.block_tables[row, : -(-context // self._block_size)]
        if batch.starts[row] == 0 and context == stop - start:  # neither a chunk of a longer prompt nor padded
            return Span(start, stop, blocks, context, None)
        beyond = torch.arange(context, device=self._device) > batch.positions[start:stop, None]
        return Span(start, stop, blocks, context, self._mask(beyond))

    def _mask(self, forbidden: Tensor) -> Tensor:
        zeros = torch.zeros(forbidden.shape, dtype=self._work, device=self._device)
        return zeros.masked_fill_(forbidden, float("-inf"))

    def _attend_single(self, layer: int, q: Tensor, single: Single) -> Tensor:
        rows = q.shape[0]
        k = self._gather("keys", layer, single.blocks, rows, single.length)
        v = self._gather("values", layer, single.blocks, rows, single.length)
        query = q.to(self._work)[:, :, None, :]  # [rows, heads, 1, head_dim]
        out = self._sdpa(query, k, v, attn_mask=single.mask, scale=self._scales[layer])
        return out[:, :, 0, :]  # [rows, heads, head_dim]

    def _attend_span(self, layer: int, q: Tensor, k: Tensor, v: Tensor, span: Span) -> Tensor:
        query = q.to(self._work).transpose(0, 1)[None]  # [1, heads, queries, head_dim]
        scale = self._scales[layer]
        if span.mask is None:
            key, value = (t.to(self._work).transpose(0, 1)[None] for t in (k, v))
            out = self._sdpa(query, key, value, is_causal=True, scale=scale)
        else:
            key = self._gather("keys", layer, span.blocks, 1, span.context)
            value = self._gather("values", layer, span.blocks, 1, span.context)
            out = self._sdpa(query, key, value, attn_mask=span.mask, scale=scale)
        return out[0].transpose(0, 1)  # [queries, heads, head_dim]

    def _write(self, layer: int, at: Tensor, k: Tensor, v: Tensor) -> None:
        self._store.write(layer, at, k, v)

    def _gather(self, kind: Literal["keys", "values"], layer: int, blocks: Tensor, rows: int, length: int) -> Tensor:
        """[rows, heads, length, head_dim] in the working format. Written over by the next gather of this kind."""
        cache: Tensor = getattr(self._store, kind)[layer]
        count, width = blocks.shape[0], cache.shape[1]
        found = self._buffer(kind, self._dtype, count, width)
        torch.index_select(cache, 0, blocks, out=found)
        if self._work is not self._dtype:
            found = self._buffer(kind, self._work, count, width).copy_(found)
        return found.view(rows, -1, self._spec.heads, self._spec.head_dim)[:, :length].transpose(1, 2)

    def _buffer(self, kind: str, dtype: torch.dtype, count: int, width: int) -> Tensor:
        held = self._buffers.get((kind, dtype))
        if held is None or held.shape[0] < count:
            blocks = max(count, self._capacity // self._block_size)
            held = self._buffers[(kind, dtype)] = torch.empty((blocks, width), dtype=dtype, device=self._device)
        return held[:count]


def without_cudnn(*given: Any, **named: Any) -> Tensor:
    """PyTorch's attention, but never cuDNN's: that one builds a plan for every new shape, and a context that grows by a
    token has a new shape at every step. On an H100 a step took 67 ms with it and 6 without (records/)."""
    allowed: bool = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        return functional.scaled_dot_product_attention(*given, **named)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(allowed)
