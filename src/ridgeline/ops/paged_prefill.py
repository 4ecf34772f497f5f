"""Prefill attention over pages: rows of many queries, end to end. Knows no batch beyond them.

Keys and values of the queries' own positions are read from the pages too: they were stored before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ridgeline.ops.paged_decode import attend
from ridgeline.ops.pages import Pages


@dataclass(frozen=True, slots=True)
class Span:
    """On the host: a row's queries are [start, stop) of the batch, the first at position `first` of its sequence. It
    attends `context` positions at most. A query beyond the last position repeats that one: it is padding."""

    start: int
    stop: int
    first: int
    context: int


@dataclass(frozen=True, slots=True)
class Spans:
    """rows on the host. On the device: facts [rows, 4], the same as in a Span; tiles [tiles, 2], row and first query in
    it, for kernels that compute so many queries at a time; block_tables [rows, width] int32."""

    rows: tuple[Span, ...]
    facts: Tensor
    tiles: Tensor
    block_tables: Tensor


def prefill(q: Tensor, out: Tensor, pages: Pages, spans: Spans, scale: float, window: int | None = None) -> None:
    """The definition. q, out: [tokens, heads, head_dim]. Writes the rows' part of `out`. Causal: a query attends every
    position up to its own, or the last `window` of them."""
    for row, span in enumerate(spans.rows):
        blocks = spans.block_tables[row, : -(-span.context // pages.block_size)]
        keys, values = (part.transpose(0, 1).flatten(1, 2)[None] for part in pages.read(blocks))
        own = torch.arange(span.stop - span.start, device=q.device).add_(span.first).clamp_(max=span.context - 1)
        position = torch.arange(keys.shape[2], device=q.device)
        seen = position <= own[:, None]
        if window is not None:
            seen &= position > own[:, None] - window
        mine = slice(span.start, span.stop)
        out[mine] = attend(q[mine][None], keys, values, seen[None], scale)[0].to(out.dtype)
