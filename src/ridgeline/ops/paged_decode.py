"""Decode attention over pages: one query a row. Knows no batch; shapes and addresses are fixed, so it can be captured.

The new token's key and value are written by the same call: a launch fewer, and nobody reads what is not there yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ridgeline.ops.pages import Pages, append


@dataclass(frozen=True, slots=True)
class Singles:
    """Rows with one query each, all on the device. block_tables: [rows, width] int32; contexts: [rows], positions a row
    attends, its new one included; a row with less than 1 is left out: it stores nothing, and its part of the result
    stays as it is. tokens: [rows], where a row's query, key and value are in the batch; None: they are the whole batch,
    in order.
    """

    block_tables: Tensor
    contexts: Tensor
    tokens: Tensor | None = None


def decode(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, pages: Pages, rows: Singles, scale: float, window: int | None = None
) -> None:
    """The definition. q, out: [tokens, heads, head_dim]; k, v: [tokens, kv_heads, head_dim]; heads are a multiple of
    kv_heads, and neighbours share one. Stores k and v of these rows at contexts - 1, and writes their part of `out`.
    window: a query attends so many positions at most, the last ones. What a row that is left out would store goes to
    the last block, which is scratch.
    """
    tokens = torch.arange(q.shape[0], device=q.device) if rows.tokens is None else rows.tokens
    real, contexts = rows.contexts > 0, rows.contexts.long().clamp(min=1)
    at = contexts - 1
    block = rows.block_tables.gather(1, (at // pages.block_size)[:, None]).long()[:, 0]
    block = torch.where(real, block, pages.values.shape[0] - 1)
    append(pages, k[tokens], v[tokens], block * pages.block_size + at % pages.block_size)
    keys, values = (
        part.transpose(1, 2).flatten(2, 3) for part in pages.read(rows.block_tables)
    )  # [rows, kv_heads, width * block_size, head_dim]
    position = torch.arange(keys.shape[2], device=q.device)
    seen = position < contexts[:, None]
    if window is not None:
        seen &= position >= contexts[:, None] - window
    mixed = attend(q[tokens][:, None], keys, values, seen[:, None], scale)[:, 0].to(out.dtype)
    beyond = torch.cat((out, out[:1]))  # a place more, for rows that are left out
    out.copy_(beyond.index_copy_(0, torch.where(real, tokens.long(), q.shape[0]), mixed)[:-1])


def attend(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor, scale: float) -> Tensor:
    """Softmax attention in float32. q: [rows, queries, heads, head_dim]; keys, values: [rows, kv_heads, length,
    head_dim]; seen: [rows, queries, length]. Returns [rows, queries, heads, head_dim]. What no query of a row sees may
    be anything, a NaN too.
    """
    rows, queries, heads, dim = q.shape
    grouped = q.to(torch.float32).view(rows, queries, keys.shape[1], -1, dim)  # [.., kv_heads, group, dim]
    known = seen.any(1)[:, None, :, None]
    keys, values = (torch.where(known, part, 0.0) for part in (keys, values))
    scores = torch.einsum("rqhgd,rhld->rqhgl", grouped, keys) * scale
    weights = scores.masked_fill(~seen[:, :, None, None, :], float("-inf")).softmax(-1)
    return torch.einsum("rqhgl,rhld->rqhgd", weights, values).reshape(rows, queries, heads, dim)
