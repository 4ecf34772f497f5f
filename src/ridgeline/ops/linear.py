"""y = x W^T + b, and what a CPU does instead of asking its library plainly.

The figures were measured on 2 cores of Zen 3 (AVX2; torch 2.13 with MKL; GPT-2 124M's matrices, streamed from memory).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.device.base import Device

LinearKernel = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(x [tokens, d_in], weight [d_out, d_in], bias [d_out] or None) -> [tokens, d_out], contiguous, in x's format."""

_FEW = 4
_TILE_BYTES = 8 << 20


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The definition, for x and weight of one format."""
    return functional.linear(x, weight, bias)


def linear_kernel(device: Device) -> LinearKernel:
    """The fastest known for this device and its formats."""
    for fits, kernel in ((is_columns, Columns), (is_native, Native), (is_upcast, Upcast)):
        if fits(device):
            return kernel()
    return linear


def is_columns(device: Device) -> bool:
    return device.torch_device.type == "cpu" and device.dtype is torch.float32


def is_native(device: Device) -> bool:
    return device.torch_device.type == "cpu" and device.dtype is not torch.float32 and device.compute is device.dtype


def is_upcast(device: Device) -> bool:
    return device.torch_device.type == "cpu" and device.compute is not device.dtype


class Columns:
    """float32: multiply as W x^T, which MKL does 1.2 to 2.5 times faster than x W^T from 2 rows up to a few hundred.

    One to three rows are padded to four: a single row otherwise runs at 8 GFLOP/s on one thread, four run at 43, so
    the padded product takes 0.33 ms where the plain one takes 0.43 (768 x 2304).
    """

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return _rows(torch.mm(weight, _at_least_four(x).t()), bias, x.shape[0])


class Upcast:
    """Weights of 16 bits on a CPU that does not multiply them: activations are float32, weights are read as 16 bits.

    One or two rows go through the library's 16-bit matrix times vector, which reads at 20 GB/s; its cost grows with
    every row, though (18 GFLOP/s). So more rows widen a tile of the weight into a buffer that stays in the cache and
    multiply in float32: 120 GFLOP/s at 32 rows, as fast as if the weights had been float32 all along.
    """

    def __init__(self, tile_bytes: int = _TILE_BYTES) -> None:
        self._tile = torch.empty(tile_bytes // 4)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if x.shape[0] < 3:
            out = torch.stack([torch.mv(weight, row) for row in x.to(weight.dtype).unbind()]).to(x.dtype)
            return out if bias is None else out.add_(bias)
        tokens, (d_out, d_in) = x.shape[0], weight.shape
        columns = _at_least_four(x).t()  # [d_in, tokens]
        height = self._height(d_out, d_in)
        if height >= d_out:
            return _rows(torch.mm(self._widen(weight), columns), bias, tokens)
        out = torch.empty(tokens, d_out, dtype=x.dtype)
        for start in range(0, d_out, height):
            part = torch.mm(self._widen(weight[start : start + height]), columns)  # [height, tokens]
            out[:, start : start + height] = part.t()[:tokens]
        return out if bias is None else out.add_(bias)

    def _height(self, d_out: int, d_in: int) -> int:
        """Rows of equal tiles, as few as fit the buffer."""
        tiles = -(-d_out * d_in // self._tile.numel())
        return -(-d_out // tiles)

    def _widen(self, weight: Tensor) -> Tensor:
        if weight.numel() > self._tile.numel():
            self._tile = torch.empty(weight.numel())
        return self._tile[: weight.numel()].view(weight.shape).copy_(weight)


class Native:
    """bfloat16 on a CPU that multiplies it. oneDNN is best from two rows up (880 GFLOP/s on 2 cores of Zen 5), but
    for a single row the library's own matrix times vector is 1.7 times faster than oneDNN's, so it is set aside."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if x.shape[0] > 1:
            return functional.linear(x, weight, bias)
        # torch.backends.mkldnn.flags would do, but it sets three more switches, one of them with a warning.
        before = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        try:
            return functional.linear(x, weight, bias)
        finally:
            torch._C._set_mkldnn_enabled(before)


def _at_least_four(x: Tensor) -> Tensor:
    missing = _FEW - x.shape[0]
    return x if missing <= 0 else functional.pad(x, (0, 0, 0, missing))


def _rows(columns: Tensor, bias: Tensor | None, tokens: int) -> Tensor:
    """columns: [d_out, at least tokens]. Returns [tokens, d_out], contiguous, with the bias added."""
    rows = columns.t()[:tokens]  # [tokens, d_out]
    if bias is None:
        return rows.contiguous()
    # Turned and added in one pass: every pass is a meeting of all threads.
    return torch.add(rows, bias, out=torch.empty(rows.shape, dtype=rows.dtype))
