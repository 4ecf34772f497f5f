"""Prefill attention over head-major pages in Triton: FlashAttention (Dao et al. 2022) whose keys lie in pages.

Knows rows of many queries, end to end, and tiles of them. A tile reads the cached prefix and its own part of the prompt
alike: both are in the pages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ridgeline.ops.declared import declare
from ridgeline.ops.paged_decode_triton import LOWEST
from ridgeline.ops.paged_prefill import Spans
from ridgeline.ops.pages import Pages, tokens_bytes
from ridgeline.ops.pages_triton import KINDS, PLAIN, key_rows, page_of, rows_of, scale_pair, scales_of, width_of


@triton.jit
def _step(
    query, most, total, mixed, values, words, table, start, own, context, kv_head, scale,
    MASKED: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    KEYS: tl.constexpr, WINDOW: tl.constexpr, KIND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The softmax over KEYS positions more. MASKED: not every query sees all of them."""
    columns = tl.arange(0, WIDTH)
    positions = start + tl.arange(0, KEYS)
    page, offset = page_of(table, start, positions, context, BLOCK, KEYS), positions % BLOCK
    at = key_rows(page, kv_head, offset, KV_HEADS, BLOCK).to(tl.int64)[:, None] * HEAD_DIM + columns[None, :]
    known = positions < context
    mask = known[:, None] & (columns < HEAD_DIM)[None, :]
    keys = tl.load(values + at, mask=mask, other=0.0).to(query.dtype)
    scores = tl.dot(query, tl.trans(keys), input_precision=PRECISION) * scale
    if KIND != 0:
        key_scales, value_scales = scale_pair(words, page, kv_head, offset, known, KV_HEADS, BLOCK)
        scores *= key_scales[None, :]
    if MASKED:
        seen = positions[None, :] <= own[:, None]
        if WINDOW > 0:
            seen = seen & (positions[None, :] > own[:, None] - WINDOW)
        scores = tl.where(seen, scores, LOWEST)
    higher = tl.maximum(most, tl.max(scores, 1))
    shrink = tl.exp2(most - higher)
    weights = tl.exp2(scores - higher[:, None])
    if MASKED:
        weights = tl.where(seen, weights, 0.0)
    total = total * shrink + tl.sum(weights, 1)
    if KIND != 0:
        weights *= value_scales[None, :]
    mixing = tl.load(values + at + KV_HEADS * BLOCK * HEAD_DIM, mask=mask, other=0.0).to(query.dtype)
    mixed = tl.dot(weights.to(query.dtype), mixing, mixed * shrink[:, None], input_precision=PRECISION)
    return higher, total, mixed


# As in _decode: nothing that differs from step to step is compiled in.
@triton.jit(do_not_specialize=["table_stride"], do_not_specialize_on_alignment=["tables", "facts", "tiles"])
def _prefill(
    q, out, values, words, tables, facts, tiles, scale, q_stride, out_stride, table_stride,
    GROUP: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, WINDOW: tl.constexpr, KIND: tl.constexpr, PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """A program: a tile of QUERIES queries of one row, for one head. The last tiles of a row have most to do, so they
    go first."""
    nth, head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)
    kv_head = head // GROUP
    row, begin = tl.load(tiles + 2 * nth).to(tl.int32), tl.load(tiles + 2 * nth + 1).to(tl.int32)
    if row < 0:
        return
    start, stop = tl.load(facts + 4 * row).to(tl.int32), tl.load(facts + 4 * row + 1).to(tl.int32)
    first, context = tl.load(facts + 4 * row + 2).to(tl.int32), tl.load(facts + 4 * row + 3).to(tl.int32)
    columns, queries = tl.arange(0, WIDTH), begin + tl.arange(0, QUERIES)
    own = tl.minimum(first + queries, context - 1)
    mask = (start + queries < stop)[:, None] & (columns < HEAD_DIM)[None, :]
    inside = head * HEAD_DIM + columns[None, :]
    query = tl.load(q + (start + queries).to(tl.int64)[:, None] * q_stride + inside, mask=mask, other=0.0)
    most = tl.full([QUERIES], LOWEST, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mixed = tl.zeros([QUERIES, WIDTH], tl.float32)
    table = tables + row * table_stride
    nearest = tl.minimum(first + begin, context - 1)  # position of the first query
    low, full, end = 0, (nearest + 1) // KEYS * KEYS, tl.minimum(first + begin + QUERIES, context)
    if WINDOW > 0:
        low = tl.maximum(nearest + 1 - WINDOW, 0) // KEYS * KEYS
        full = low
    for tile in tl.range(low, full, KEYS, num_stages=STAGES):
        most, total, mixed = _step(
            query, most, total, mixed, values, words, table, tile, own, context, kv_head, scale,
            False, KV_HEADS, HEAD_DIM, WIDTH, BLOCK, KEYS, WINDOW, KIND, PRECISION,
        )  # fmt: skip
    for tile in tl.range(full, end, KEYS, num_stages=STAGES):
        most, total, mixed = _step(
            query, most, total, mixed, values, words, table, tile, own, context, kv_head, scale,
            True, KV_HEADS, HEAD_DIM, WIDTH, BLOCK, KEYS, WINDOW, KIND, PRECISION,
        )  # fmt: skip
    at = out + (start + queries).to(tl.int64)[:, None] * out_stride + inside
    tl.store(at, (mixed / total[:, None]).to(out.dtype.element_ty), mask=mask)


@dataclass(frozen=True)
class Prefill:
    """As paged_prefill.prefill. queries: of a tile, as the plan cut them; keys: positions at a time."""

    queries: int = 64
    keys: int = 64
    warps: int = 4
    stages: int = 2

    def __call__(
        self, q: Tensor, out: Tensor, pages: Pages, spans: Spans, scale: float, window: int | None = None
    ) -> None:
        q, q_stride = rows_of(q)
        heads, head_dim = q.shape[1:]
        kv_heads, columns = pages.values.shape[2], width_of(head_dim)
        declare(lambda: _spans_bytes(spans, pages, q, window))
        _prefill[(spans.tiles.shape[0], heads)](
            q, out, pages.values, scales_of(pages)[1], spans.block_tables, spans.facts, spans.tiles,
            scale * math.log2(math.e), q_stride, out.stride(0), spans.block_tables.stride(0),
            GROUP=heads // kv_heads, KV_HEADS=kv_heads, HEAD_DIM=head_dim, WIDTH=columns, BLOCK=pages.block_size,
            QUERIES=self.queries, KEYS=max(16, min(self.keys, 64 * 128 // columns)), WINDOW=window or 0,
            KIND=KINDS.get(pages.values.dtype, PLAIN), PRECISION="ieee" if q.dtype is torch.float32 else "tf32",
            STAGES=self.stages, num_warps=self.warps,
        )  # fmt: skip


def _spans_bytes(spans: Spans, pages: Pages, q: Tensor, window: int | None) -> int:
    """Queries, results, and what any query of a row attends."""
    a_query = q.shape[1] * q.shape[2] * q.element_size()
    total = 0
    for start, stop, first, context in spans.facts.tolist():
        if stop > start:
            begins = 0 if window is None else max(0, first + 1 - window)
            total += 2 * (stop - start) * a_query + tokens_bytes(pages, context - begins)
    return total
