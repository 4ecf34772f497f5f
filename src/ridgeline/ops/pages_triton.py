"""Pages in Triton: how kernels find, store and widen what lies in them. Knows no query.

A row of a page is one head's values of one token; rows are counted over the whole layer, in the order of memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ridgeline.ops.declared import bytes_of, declare
from ridgeline.ops.pages import SCALED, Pages, tokens_bytes

PLAIN, INT8, FLOAT8 = 0, 1, 2
KINDS = {torch.int8: INT8, torch.float8_e4m3fn: FLOAT8}
_APPENDED_TOGETHER = 16


def width_of(head_dim: int) -> int:
    """Columns of a tile: a power of two, at least what a matrix product wants."""
    return max(16, 1 << (head_dim - 1).bit_length())


def most_of(dtype: torch.dtype) -> float:
    """Largest value of a cache's format, where values may exceed it; 0: they are stored as they are."""
    return SCALED.get(dtype, torch.finfo(dtype).max if dtype is torch.float16 else 0.0)


def scales_of(pages: Pages) -> tuple[Tensor, Tensor]:
    """The scales, one by one and as words of two, or anything where there are none: a kernel wants a pointer."""
    scales = pages.scales
    return (pages.values, pages.values) if scales is None else (scales, scales.view(torch.int32))


def rows_of(x: Tensor) -> tuple[Tensor, int]:
    """x: [tokens, heads, head_dim] with heads side by side in a token, and the distance between tokens."""
    if x.stride(2) != 1 or x.stride(1) != x.shape[2]:
        x = x.contiguous()
    return x, x.stride(0)


@triton.jit
def page_of(table, start, positions, last, BLOCK: tl.constexpr, TILE: tl.constexpr):
    """Pages of positions [start, start + TILE) of one sequence. table: its blocks. A tile inside a page asks for its
    entry once; one over several pages asks at every position, but never at `last` or beyond."""
    if BLOCK % TILE == 0:
        page = tl.load(table + start // BLOCK)
    else:
        page = tl.load(table + positions // BLOCK, mask=positions < last, other=0)
    return page


@triton.jit
def key_rows(page, head, offset, KV_HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """Where keys lie; values lie KV_HEADS * BLOCK rows further."""
    return (page * 2 * KV_HEADS + head) * BLOCK + offset


@triton.jit
def scale_pair(words, page, head, offset, mask, KV_HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """Scales of keys and of values in float32, from one word each pair."""
    word = tl.load(words + (page * KV_HEADS + head) * BLOCK + offset, mask=mask, other=0)
    low, high = (word & 0xFFFF).to(tl.int16), (word >> 16).to(tl.int16)
    return low.to(tl.float16, bitcast=True).to(tl.float32), high.to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def narrowed(x, KIND: tl.constexpr, MOST: tl.constexpr):
    """x: [rows, columns] float32 as a cache holds it but still in float32, and its scales [rows]. Divisions are rounded
    as torch rounds them: Triton's `/` may be a bit off, and so would be the page."""
    if KIND == 0:
        scales = tl.zeros([x.shape[0]], tl.float32) + 1.0
        if MOST > 0:
            x = tl.minimum(tl.maximum(x, -MOST), MOST)
    else:
        most = tl.zeros([x.shape[0]], tl.float32) + MOST
        scales = tl.minimum(tl.maximum(tl.div_rn(tl.max(tl.abs(x), 1), most), 0.000000059604644775390625), 65504.0)
        scales = scales.to(tl.float16).to(tl.float32)
        x = tl.minimum(tl.maximum(tl.div_rn(x, tl.broadcast_to(scales[:, None], x.shape)), -MOST), MOST)
        if KIND == 1:
            x = (x + 12582912.0) - 12582912.0  # to the nearest whole: beyond 1.5 * 2**23 a float32 has no fraction
    return x, scales


@triton.jit
def put(
    values, scales, page, head, offset, mask, k, v,
    KIND: tl.constexpr, MOST: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Store k, v [tokens, WIDTH] float32 of a head. page, offset, mask: [tokens]. Returns both as a reader will see
    them."""
    columns = tl.arange(0, WIDTH)
    keys, key_scales = narrowed(k, KIND, MOST)
    mixed, value_scales = narrowed(v, KIND, MOST)
    keys, mixed = keys.to(values.dtype.element_ty), mixed.to(values.dtype.element_ty)
    at = key_rows(page, head, offset, KV_HEADS, BLOCK).to(tl.int64)[:, None] * HEAD_DIM + columns[None, :]
    inside = mask[:, None] & (columns < HEAD_DIM)[None, :]
    tl.store(values + at, keys, mask=inside)
    tl.store(values + at + KV_HEADS * BLOCK * HEAD_DIM, mixed, mask=inside)
    if KIND != 0:
        at = scales + 2 * ((page * KV_HEADS + head) * BLOCK + offset)
        tl.store(at, key_scales.to(tl.float16), mask=mask)
        tl.store(at + 1, value_scales.to(tl.float16), mask=mask)
    return keys.to(tl.float32) * key_scales[:, None], mixed.to(tl.float32) * value_scales[:, None]


# As in _decode: nothing that differs from step to step is compiled in.
@triton.jit(do_not_specialize=["tokens"], do_not_specialize_on_alignment=["writes"])
def _append(
    k, v, values, scales, writes, tokens, k_stride, v_stride,
    KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, KIND: tl.constexpr,
    MOST: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0) * TOGETHER + tl.arange(0, TOGETHER), tl.program_id(1)
    columns = tl.arange(0, WIDTH)
    real = token < tokens
    mask = real[:, None] & (columns < HEAD_DIM)[None, :]
    at = tl.load(writes + token, mask=real, other=0).to(tl.int32)
    token = token.to(tl.int64)[:, None]
    inside = head * HEAD_DIM + columns[None, :]
    keys = tl.load(k + token * k_stride + inside, mask=mask, other=0.0).to(tl.float32)
    mixed = tl.load(v + token * v_stride + inside, mask=mask, other=0.0).to(tl.float32)
    put(values, scales, at // BLOCK, head, at % BLOCK, real, keys, mixed, KIND, MOST, KV_HEADS, HEAD_DIM, WIDTH, BLOCK)


def append(pages: Pages, k: Tensor, v: Tensor, writes: Tensor) -> None:
    """As pages.append."""
    (k, k_stride), (v, v_stride) = rows_of(k), rows_of(v)
    tokens, kv_heads, head_dim = k.shape
    dtype = pages.values.dtype
    declare(lambda: bytes_of(k, v, writes) + tokens_bytes(pages, tokens))
    _append[(triton.cdiv(tokens, _APPENDED_TOGETHER), kv_heads)](
        k, v, pages.values, scales_of(pages)[0], writes, tokens, k_stride, v_stride,
        KV_HEADS=kv_heads, HEAD_DIM=head_dim, WIDTH=width_of(head_dim), BLOCK=pages.block_size,
        KIND=KINDS.get(dtype, PLAIN), MOST=most_of(dtype), TOGETHER=_APPENDED_TOGETHER,
    )  # fmt: skip
