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
class Spans:
    """All on the device. facts: [rows, 4] start, stop, first, context: a row's queries are [start, stop) of the batch,
    the first at position `first` of its sequence, and they attend `context` positions at most; a query beyond the last
    position repeats that one: it is padding. A row that stops where it starts has none.
    tiles: [tiles, 2], row and first query in it, for kernels that compute so many queries at a time; a row below 0 is
    a tile of nobody. block_tables: [rows, width] int32."""

    facts: Tensor
    tiles: Tensor
    block_tables: Tensor


def prefill(q: Tensor, out: Tensor, pages: Pages, spans: Spans, scale: float, window: int | None = None) -> None:
    """The definition. q, out: [tokens, heads, head_dim]. Writes the rows' part of `out`. Causal: a query attends every
    position up to its own, or the last `window` of them.

    Every row computes all queries and keeps its own, so the device is asked for nothing and the call can be captured.
    """
    token = torch.arange(q.shape[0], device=q.device)
    for facts, table in zip(spans.facts.unbind(), spans.block_tables.unbind(), strict=True):
        start, stop, first, context = facts.unbind()
        keys, values = (part.transpose(0, 1).flatten(1, 2)[None] for part in pages.read(table))
        mine = (token >= start) & (token < stop)
        own = torch.minimum(token - start + first, context - 1)
        position = torch.arange(keys.shape[2], device=q.device)
        seen = mine[:, None] & (position <= own[:, None])
        if window is not None:
            seen &= position > own[:, None] - window
        mixed = attend(q[None], keys, values, seen[None], scale)[0].to(out.dtype)
        out.copy_(torch.where(mine[:, None, None], mixed, out))
