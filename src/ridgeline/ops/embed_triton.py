"""A sum of two looked-up rows in one kernel, as ops/embed.py defines it. Knows two tables."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ridgeline.ops.declared import bytes_of, declare
from ridgeline.ops.dependent_triton import gdc_launch_dependents, gdc_wait, launch_options


@triton.jit
def _sum_of_rows(
    first, ids, second, places, out, first_stride, second_stride, D: tl.constexpr, WIDTH: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    """A program: a row. First of a step's chain to wait, it lets the next begin after that: so all that were launched
    before this one are done when any of them begins."""
    if DEPENDENT:
        gdc_wait()
        gdc_launch_dependents()
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDTH)
    mine = tl.load(ids + row).to(tl.int64) * first_stride + at
    also = tl.load(places + row).to(tl.int64) * second_stride + at
    kind = out.dtype.element_ty
    x = tl.load(first + mine, mask=at < D, other=0.0).to(kind).to(tl.float32)
    y = tl.load(second + also, mask=at < D, other=0.0).to(kind).to(tl.float32)
    tl.store(out + row * D + at, (x + y).to(kind), mask=at < D)


def sum_of_rows(
    first: Tensor, ids: Tensor, second: Tensor, places: Tensor, dtype: torch.dtype, dependent: bool
) -> Tensor:
    """dependent: launched before the kernel ahead of it is done, where the GPU can."""
    rows, d = ids.shape[0], first.shape[1]
    out = torch.empty(rows, d, dtype=dtype, device=first.device)
    if not rows:
        return out
    declare(lambda: bytes_of(ids, places, out) + rows * d * (first.element_size() + second.element_size()))
    _sum_of_rows[(rows,)](
        first, ids, second, places, out, first.stride(0), second.stride(0),
        D=d, WIDTH=triton.next_power_of_2(d), DEPENDENT=dependent, num_warps=4, **launch_options(dependent),
    )  # fmt: skip
    return out
