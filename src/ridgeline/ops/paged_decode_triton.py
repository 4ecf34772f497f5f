"""Decode attention over head-major pages in Triton. Knows one query a row; shapes alone decide the grid.

Every place of a tile keeps an online softmax (Milakov and Gimelshein 2018) of its own: its largest score, its sum and
its mix of values. So nothing is reduced over threads inside the loop but the scores; places meet once, at the end.

With few rows a sequence is cut into parts of fixed length, so that a row's result does not depend on who else is in the
batch; whoever of a row's programs ends last adds the parts up, in their order, and no second kernel is needed. Programs
beyond a row's context end at once, so the grid is that of the table's width, and a captured step stays valid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

from ridgeline.ops.declared import attended, bytes_of, declare
from ridgeline.ops.paged_decode import Singles
from ridgeline.ops.pages import Pages, tokens_bytes
from ridgeline.ops.pages_triton import (
    KINDS,
    PLAIN,
    key_rows,
    most_of,
    page_of,
    put,
    rows_of,
    scale_pair,
    scales_of,
    width_of,
)

LOWEST = tl.constexpr(-1e30)
"""A score below all others, but no infinity: the difference of two infinities is no number."""


@triton.jit
def _added_up(mixes, sums, base, low, high, WIDTH: tl.constexpr):
    """Parts low to high of one head, in their order whoever ended last. Read from L2, where others wrote them."""
    columns = tl.arange(0, WIDTH)
    peak = tl.load(sums + 2 * (base + low), cache_modifier=".cg")
    total = tl.load(sums + 2 * (base + low) + 1, cache_modifier=".cg")
    mixed = tl.load(mixes + (base + low) * WIDTH + columns, cache_modifier=".cg")
    for part in range(low + 1, high + 1):
        theirs = tl.load(sums + 2 * (base + part), cache_modifier=".cg")
        highest = tl.maximum(peak, theirs)
        ours, theirs = tl.exp2(peak - highest), tl.exp2(theirs - highest)
        total = total * ours + tl.load(sums + 2 * (base + part) + 1, cache_modifier=".cg") * theirs
        mixed = mixed * ours + tl.load(mixes + (base + part) * WIDTH + columns, cache_modifier=".cg") * theirs
        peak = highest
    return mixed, total


# Whatever differs from step to step is not compiled in: a step that waits for a compiler waits seconds.
@triton.jit(do_not_specialize=["table_stride"], do_not_specialize_on_alignment=["tables", "contexts", "tokens"])
def _decode(
    q, k, v, out, values, scales, words, tables, contexts, tokens, mixes, sums, arrived,
    scale, q_stride, k_stride, v_stride, out_stride, table_stride,
    GROUP: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    TILE: tl.constexpr, PART: tl.constexpr, WINDOW: tl.constexpr, KIND: tl.constexpr, MOST: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """A program: a row's head, and a part of PART positions; 0: the whole context."""
    head, row, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_head = head // GROUP
    context = tl.load(contexts + row).to(tl.int32)
    if context < 1:
        return
    new = context - 1
    first = tl.maximum(context - WINDOW, 0) if WINDOW > 0 else 0
    begin, end = part * PART, context
    if PART > 0:
        end = tl.minimum(context, begin + PART)
        if (begin >= context) | (end <= first):
            return
    token = row if tokens is None else tl.load(tokens + row)
    token = token.to(tl.int64)
    columns, places = tl.arange(0, WIDTH), tl.arange(0, TILE)
    inside = columns < HEAD_DIM
    query = tl.load(q + token * q_stride + head * HEAD_DIM + columns, mask=inside, other=0.0).to(tl.float32) * scale
    most = tl.full([TILE], LOWEST, tl.float32)
    total = tl.zeros([TILE], tl.float32)
    mixed = tl.zeros([TILE, WIDTH], tl.float32)
    table = tables + row * table_stride
    if end == context:
        # The new token begins at place 0, as a reader of the page will see it. Only the first of the heads that share
        # it writes it: nobody reads it from the page in this launch.
        at = kv_head * HEAD_DIM + columns[None, :]
        key = tl.load(k + token * k_stride + at, mask=inside[None, :], other=0.0).to(tl.float32)
        value = tl.load(v + token * v_stride + at, mask=inside[None, :], other=0.0).to(tl.float32)
        none = tl.arange(0, 1)
        key, value = put(
            values, scales, none + tl.load(table + new // BLOCK), kv_head, none + new % BLOCK,
            none == head % GROUP, key, value, KIND, MOST, KV_HEADS, HEAD_DIM, WIDTH, BLOCK,
        )  # fmt: skip
        most = tl.where(places == 0, tl.sum(key * query[None, :], 1), most)
        total = tl.where(places == 0, 1.0, total)
        mixed = tl.where(places[:, None] == 0, value, mixed)
    start = tl.maximum(begin, first // TILE * TILE)
    for tile in tl.range(start, tl.minimum(end, new), TILE, num_stages=STAGES):
        positions = tile + places
        seen = (positions < new) & (positions >= first)
        page, offset = page_of(table, tile, positions, new, BLOCK, TILE), positions % BLOCK
        at = key_rows(page, kv_head, offset, KV_HEADS, BLOCK).to(tl.int64)[:, None] * HEAD_DIM + columns[None, :]
        mask = seen[:, None] & inside[None, :]
        keys = tl.load(values + at, mask=mask, other=0.0).to(tl.float32)
        mixing = tl.load(values + at + KV_HEADS * BLOCK * HEAD_DIM, mask=mask, other=0.0).to(tl.float32)
        scores = tl.sum(keys * query[None, :], 1)
        if KIND != 0:
            key_scales, value_scales = scale_pair(words, page, kv_head, offset, seen, KV_HEADS, BLOCK)
            scores *= key_scales
        scores = tl.where(seen, scores, LOWEST)
        higher = tl.maximum(most, scores)
        shrink = tl.exp2(most - higher)
        weights = tl.where(seen, tl.exp2(scores - higher), 0.0)
        total = total * shrink + weights
        if KIND != 0:
            weights *= value_scales
        mixed = mixed * shrink[:, None] + weights[:, None] * mixing
        most = higher
    peak = tl.max(most, 0)
    shrink = tl.exp2(most - peak)
    total = tl.sum(total * shrink, 0)
    mixed = tl.sum(mixed * shrink[:, None], 0)
    parts, low, high = 1, 0, 0
    if PART > 0:
        parts, low, high = tl.num_programs(2), first // PART, new // PART
    result = out + token * out_stride + head * HEAD_DIM + columns
    if high == low:
        tl.store(result, (mixed / total).to(out.dtype.element_ty), mask=inside)
    else:
        mine = row * KV_HEADS * GROUP + head
        place = mine * parts + part
        tl.store(mixes + place * WIDTH + columns, mixed)
        tl.store(sums + 2 * place, peak)
        tl.store(sums + 2 * place + 1, total)
        tl.debug_barrier()  # all threads have stored before one of them says so
        if tl.atomic_add(arrived + mine, 1, sem="acq_rel") == high - low:
            tl.store(arrived + mine, 0)  # for the next launch
            mixed, total = _added_up(mixes, sums, mine * parts, low, high, WIDTH)
            tl.store(result, (mixed / total).to(out.dtype.element_ty), mask=inside)


@dataclass(frozen=True)
class Decode:
    """As paged_decode.decode. part: positions of a part, for fewer rows than whole_from. tile: positions at a time.

    whole_from: None cuts at every number of rows, so that a row is computed the same way in all of them.
    """

    part: int = 256
    whole_from: int | None = 64
    tile: int = 64
    warps: int = 4
    stages: int = 3
    _arrived: dict[tuple[torch.device, int], Tensor] = field(default_factory=dict)

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, pages: Pages, rows: Singles, scale: float,
        window: int | None = None,
    ) -> None:  # fmt: skip
        (q, q_stride), (k, k_stride), (v, v_stride) = rows_of(q), rows_of(k), rows_of(v)
        count, width = rows.block_tables.shape
        heads, kv_heads, head_dim = q.shape[1], k.shape[1], q.shape[2]
        columns, dtype = width_of(head_dim), pages.values.dtype
        at_once = self.whole_from
        whole = at_once is not None and (count >= at_once or width * pages.block_size <= self.part)
        parts = 1 if whole else triton.cdiv(width * pages.block_size, self.part)
        mixes = torch.empty((1 if whole else count * heads * parts * columns,), dtype=torch.float32, device=q.device)
        sums = torch.empty((2 if whole else count * heads * parts * 2,), dtype=torch.float32, device=q.device)
        declare(lambda: bytes_of(q, k, v, out) + tokens_bytes(pages, attended(rows.contexts, window)))
        _decode[(heads, count, parts)](
            q, k, v, out, pages.values, *scales_of(pages), rows.block_tables, rows.contexts, rows.tokens, mixes, sums,
            self._counters(q.device, (at_once or count) * heads), scale * math.log2(math.e), q_stride, k_stride,
            v_stride, out.stride(0), rows.block_tables.stride(0),
            GROUP=heads // kv_heads, KV_HEADS=kv_heads, HEAD_DIM=head_dim, WIDTH=columns, BLOCK=pages.block_size,
            TILE=max(16, min(self.tile, 64 * 64 // columns)), PART=0 if whole else self.part, WINDOW=window or 0,
            KIND=KINDS.get(dtype, PLAIN), MOST=most_of(dtype), STAGES=self.stages, num_warps=self.warps,
        )  # fmt: skip

    def _counters(self, device: torch.device, count: int) -> Tensor:
        """Of each row and head, how many parts are done; zero between launches. Kept, because a captured step that was
        given them goes on using them."""
        held = self._arrived.get((device, count))
        if held is None:
            held = self._arrived[device, count] = torch.zeros(count, dtype=torch.int32, device=device)
        return held
