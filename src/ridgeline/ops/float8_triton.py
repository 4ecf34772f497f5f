"""Rows to 8-bit floats in one Triton kernel: the norm before them, the largest of each, and the cast. Knows rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ridgeline.ops.declared import bytes_of, declare
from ridgeline.ops.gemv import LayerNorm
from ridgeline.ops.words import BLOCK


@triton.jit
def _quantise(
    x, gain, shift, values, scales, d_in, x_stride, eps,
    BLOCKS: tl.constexpr, ROUND: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """A program: a row. ROUND: blocks of 256 columns, rounded up to a power of two. A column of the first half of a
    block and its neighbour of the second become neighbours, as the bytes of ops/words.py are."""
    row = tl.program_id(0).to(tl.int64)
    block, along = tl.arange(0, ROUND)[:, None], tl.arange(0, HALF)[None, :]
    low = block * (2 * HALF) + along
    columns = tl.join(low, low + HALF)  # [ROUND, 128, 2]
    inside = columns < d_in
    wide = tl.load(x + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
    if gain is not None:
        mean = tl.sum(tl.sum(tl.sum(wide, 2), 1), 0) / d_in
        off = tl.where(inside, wide - mean, 0.0)
        variance = tl.sum(tl.sum(tl.sum(off * off, 2), 1), 0) / d_in
        by = tl.load(gain + columns, mask=inside, other=0.0).to(tl.float32)
        plus = tl.load(shift + columns, mask=inside, other=0.0).to(tl.float32)
        wide = off * tl.rsqrt(variance + eps) * by + plus
    most = tl.max(tl.max(tl.max(tl.abs(wide), 2), 1), 0)
    scaled = wide * tl.where(most > 0.0, 448.0 / most, 0.0)
    scaled = tl.minimum(tl.maximum(scaled, -448.0), 448.0)
    at = tl.join(block * (2 * HALF) + 2 * along, block * (2 * HALF) + 2 * along + 1)
    tl.store(values + row * (BLOCKS * 2 * HALF) + at, scaled.to(tl.float8e4nv), mask=at < BLOCKS * 2 * HALF)
    tl.store(scales + row, most / 448.0)


def quantised(x: Tensor, norm: LayerNorm | None) -> tuple[Tensor, Tensor]:
    """As float8.quantised. x: [rows, d_in], values of a row side by side."""
    assert x.stride(1) == 1
    rows, d_in = x.shape
    blocks = triton.cdiv(d_in, BLOCK)
    values = torch.empty(rows, blocks * BLOCK, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    whole = triton.next_power_of_2(blocks)
    gain, shift, eps = (None, None, 0.0) if norm is None else (norm.weight, norm.bias, norm.eps)
    declare(lambda: bytes_of(x, gain, shift, values, scales))
    _quantise[(rows,)](
        x, gain, shift, values, scales, d_in, x.stride(0), eps,
        BLOCKS=blocks, ROUND=whole, HALF=BLOCK // 2, num_warps=min(16, max(1, whole)),
    )  # fmt: skip
    return values, scales
