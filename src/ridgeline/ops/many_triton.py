"""Products for many rows by weights of fewer bits, in Triton: a tile of words becomes values in registers. Knows one
matrix and its rows.

The matrix is the first operand and x^T the second, so that what was unpacked goes to the matrix units from registers
(wgmma takes its first operand from there), and a tile is 64 outputs high however few rows there are. A matrix of few
tiles is cut along its columns too, until all multiprocessors have one, and a second kernel adds the parts in a fixed
order: a sum by atomics would depend on chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ridgeline.ops.declared import bytes_of, declare
from ridgeline.ops.gemv_triton import ACTIVATION_NUMBERS, _unpacked, activated, multiplier, multipliers_at
from ridgeline.ops.words import BLOCK, PER, Words


@triton.jit(do_not_specialize=["rows"])
def _tile(
    x, words, multipliers, scales, bias, residual, out, partial,
    rows, d_out, x_stride, residual_stride, out_stride,
    D_IN: tl.constexpr, BLOCKS: tl.constexpr, WIDE: tl.constexpr, PER: tl.constexpr, KIND: tl.constexpr,
    OUTS: tl.constexpr, ROWS: tl.constexpr, SPLIT: tl.constexpr, ACTIVATION: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """A program: OUTS outputs of ROWS rows, over one of SPLIT parts of the columns. words: [d_out, BLOCKS * WIDE], PER
    values in each, which lie WIDE columns apart. What is above `rows` or d_out is the last one again, unwritten."""
    outs = tl.program_id(0) * OUTS + tl.arange(0, OUTS)
    held = tl.minimum(outs, d_out - 1)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(2)
    along = tl.arange(0, WIDE)
    word_at = words + held[:, None].to(tl.int64) * (BLOCKS * WIDE) + along[None, :]
    x_at = x + tl.minimum(row, rows - 1)[None, :].to(tl.int64) * x_stride + along[:, None]
    sums = tl.zeros([OUTS, ROWS], tl.float32)
    row_multipliers = held[:, None] * (BLOCKS * WIDE // 32)
    for block in tl.range(part * BLOCKS // SPLIT, (part + 1) * BLOCKS // SPLIT, num_stages=STAGES):
        word = tl.load(word_at + block * WIDE)
        if multipliers is not None:
            by = tl.load(multipliers + multipliers_at(row_multipliers, block * WIDE, WIDE))
        for nth in tl.static_range(PER):
            first = block * (WIDE * PER) + nth * WIDE
            if D_IN % (WIDE * PER) == 0:
                values = tl.load(x_at + first)
            else:
                values = tl.load(x_at + first, mask=(first + along < D_IN)[:, None], other=0.0)
            weight = _unpacked(word, nth, KIND)
            if multipliers is not None:
                weight *= multiplier(by, nth, OUTS, WIDE)
            sums = tl.dot(weight.to(values.dtype), values, sums, input_precision="ieee")
    real = (outs < d_out)[:, None] & (row < rows)[None, :]
    at = row[None, :].to(tl.int64)
    if SPLIT > 1:
        tl.store(partial + (part * rows + at) * d_out + outs[:, None], sums, mask=real)
    else:
        sums *= tl.load(scales + held)[:, None]
        if bias is not None:
            sums += tl.load(bias + held).to(tl.float32)[:, None]
        sums = activated(sums, ACTIVATION)
        if residual is not None:
            sums += tl.load(residual + at * residual_stride + outs[:, None], mask=real, other=0.0).to(tl.float32)
        tl.store(out + at * out_stride + outs[:, None], sums.to(out.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["rows"])
def _added(
    partial, scales, bias, residual, out, rows, d_out, residual_stride, out_stride,
    SPLIT: tl.constexpr, ACTIVATION: tl.constexpr, OUTS: tl.constexpr,
):  # fmt: skip
    """A program: OUTS outputs of a row. The parts in their order, and what a tile would have done after them."""
    row, outs = tl.program_id(0).to(tl.int64), tl.program_id(1) * OUTS + tl.arange(0, OUTS)
    real = outs < d_out
    total = tl.zeros([OUTS], tl.float32)
    for part in tl.static_range(SPLIT):
        total += tl.load(partial + (part * rows + row) * d_out + outs, mask=real, other=0.0)
    total *= tl.load(scales + outs, mask=real, other=0.0)
    if bias is not None:
        total += tl.load(bias + outs, mask=real, other=0.0).to(tl.float32)
    total = activated(total, ACTIVATION)
    if residual is not None:
        total += tl.load(residual + row * residual_stride + outs, mask=real, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + outs, total.to(out.dtype.element_ty), mask=real)


@triton.jit
def _widen(
    words, multipliers, scales, out, d_out,
    D_IN: tl.constexpr, BLOCKS: tl.constexpr, WIDE: tl.constexpr, PER: tl.constexpr, KIND: tl.constexpr,
    OUTS: tl.constexpr,
):  # fmt: skip
    """A program: a block of columns of OUTS rows of the matrix."""
    outs, block = tl.program_id(0) * OUTS + tl.arange(0, OUTS), tl.program_id(1)
    held, along = tl.minimum(outs, d_out - 1).to(tl.int64), tl.arange(0, WIDE)
    word = tl.load(words + held[:, None] * (BLOCKS * WIDE) + block * WIDE + along[None, :])
    scale = tl.load(scales + held)[:, None]
    if multipliers is not None:
        by = tl.load(multipliers + multipliers_at(held[:, None] * (BLOCKS * WIDE // 32), block * WIDE, WIDE))
    for nth in tl.static_range(PER):
        columns = block * (WIDE * PER) + nth * WIDE + along
        value = _unpacked(word, nth, KIND)
        if multipliers is not None:
            value *= multiplier(by, nth, OUTS, WIDE)
        value *= scale
        inside = (outs < d_out)[:, None] & (columns < D_IN)[None, :]
        tl.store(out + held[:, None] * D_IN + columns[None, :], value.to(out.dtype.element_ty), mask=inside)


@dataclass(frozen=True, slots=True)
class Shape:
    """outs: outputs of a tile. rows: of x in it. stages: blocks of columns that are loaded ahead."""

    outs: int
    rows: int
    warps: int
    stages: int


def shape_for(rows: int, deep: bool) -> Shape:
    """deep: shared memory holds three stages of 64 rows: 16 KB of words and 32 KB of x each. Else two of 32."""
    most = 64 if deep else 32
    return Shape(64, min(most, max(16, triton.next_power_of_2(rows))), 4, 3 if deep else 2)


class Tiles:
    """programs: multiprocessors, at least so many programs a product shall have. most: rows that `linear` is for."""

    def __init__(self, programs: int, deep: bool, most: int, shape: Shape | None = None) -> None:
        self.most = most
        self._programs, self._deep, self._shape = programs, deep, shape

    def linear(
        self, x: Tensor, weight: Words, bias: Tensor | None, activation: str | None, residual: Tensor | None
    ) -> Tensor:
        """x: [rows, d_in], values of a row side by side; so with residual."""
        rows, d_out = x.shape[0], weight.d_out
        assert x.stride(1) == 1 and x.shape[1] == weight.d_in, x.shape  # noqa: PT018
        assert weight.scales is not None
        assert residual is None or residual.stride(1) == 1
        shape = self._shape or shape_for(rows, self._deep)
        per, blocks = PER[weight.kind], triton.cdiv(weight.d_in, BLOCK)
        grid = triton.cdiv(d_out, shape.outs), triton.cdiv(rows, shape.rows)
        split = max(1, min(blocks, self._programs // (grid[0] * grid[1])))
        out = torch.empty(rows, d_out, dtype=x.dtype, device=x.device)
        partial = torch.empty(split, rows, d_out, dtype=torch.float32, device=x.device) if split > 1 else None
        stride, number = 0 if residual is None else residual.stride(0), ACTIVATION_NUMBERS[activation]
        made, after = (out, (bias, residual)) if partial is None else (partial, ())
        declare(lambda: bytes_of(x, *weight.parts, made, *after))
        _tile[(*grid, split)](
            x, *weight.parts, bias, residual, out, partial,
            rows, d_out, x.stride(0), stride, out.stride(0),
            D_IN=weight.d_in, BLOCKS=blocks, WIDE=BLOCK // per, PER=per, KIND=weight.kind,
            OUTS=shape.outs, ROWS=shape.rows, SPLIT=split, ACTIVATION=number, STAGES=shape.stages,
            num_warps=shape.warps,
        )  # fmt: skip
        if partial is not None:
            declare(lambda: bytes_of(partial, bias, residual, out))
            _added[(rows, triton.cdiv(d_out, _ADDED))](
                partial, weight.scales, bias, residual, out, rows, d_out, stride, out.stride(0),
                SPLIT=split, ACTIVATION=number, OUTS=_ADDED, num_warps=4,
            )  # fmt: skip
        return out

    def widened(self, weight: Words, dtype: torch.dtype) -> Tensor:
        """One pass: 3 bytes a value move for 8 bits and 16, where torch's own operations move some 40."""
        assert weight.scales is not None
        out = torch.empty(weight.d_out, weight.d_in, dtype=dtype, device=weight.words.device)
        per, blocks = PER[weight.kind], triton.cdiv(weight.d_in, BLOCK)
        declare(lambda: bytes_of(*weight.parts, out))
        _widen[(triton.cdiv(weight.d_out, _WIDENED), blocks)](
            *weight.parts, out, weight.d_out,
            D_IN=weight.d_in, BLOCKS=blocks, WIDE=BLOCK // per, PER=per, KIND=weight.kind,
            OUTS=_WIDENED, num_warps=4,
        )  # fmt: skip
        return out


_ADDED, _WIDENED = 512, 16
"""Outputs of a program."""
