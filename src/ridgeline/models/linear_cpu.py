"""Matrices as they are on a CPU: native code for a few rows, PyTorch for more, both over the same memory.

Knows one matrix at a time; knows no model.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ridgeline.device.base import Device
from ridgeline.device.jit import CannotBuild
from ridgeline.device.pages import LargePages
from ridgeline.models.linear import Dense, Embedding, Linear, LinearSpec, Norm
from ridgeline.ops.dense import Native, Plain, Prepared, PreparedRows, build
from ridgeline.ops.linear import LinearKernel, linear_kernel

MOST_ROWS = {torch.float32: 32, torch.bfloat16: 32, torch.float16: 8}
"""By format of the weights, how many rows native code takes on vectors: a rule, not a trial, so that the same launches
give the same bits. Whole steps of GPT-2 124M at context 256 on 2 cores of an Intel Xeon without AMX, PyTorch's products
and then native code: bfloat16 47 and 30 ms at 12 rows, 93 and 67 at 32; float32 50 and 50 at 16, 97 and 89 at 32."""
ALL = 1 << 62
"""What a matrix unit takes: 12 ms against 24 for 16 rows of bfloat16 (GPT-2 124M's matrices), 19 against 30 for 64 and
112 against 109 for 512 (without the head)."""


class CpuDense(Dense):
    """native: for at most `most` rows; kernel: for more. compute: the format of activations."""

    def __init__(self, native: Native, kernel: LinearKernel, compute: torch.dtype, most: int) -> None:
        super().__init__(kernel, compute)
        self._native, self._most = native, most
        self._pages = LargePages()

    @classmethod
    def of(cls, device: Device, cache: Path | None) -> Dense:
        try:
            native = Native(build(cache), torch.get_num_threads())
        except CannotBuild as error:
            note = f"weights are multiplied by PyTorch alone, because {error}"
            return OnlyTorch(linear_kernel(device), device.compute, note)
        most = ALL if native.has_squares and device.compute is torch.bfloat16 else MOST_ROWS[device.dtype]
        return cls(native, linear_kernel(device), device.compute, most)

    @property
    def row_invariant(self) -> bool:
        """Unless few rows and many are multiplied by different kernels."""
        return self._most == ALL

    def linear(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> Linear:
        return self._over(self._placed(weight), spec, bias)

    def norm(self, weight: Tensor, bias: Tensor, eps: float) -> Norm:
        return self._native.norm(weight, bias, eps, self._compute)

    def embedding(self, weight: Tensor) -> Embedding:
        return Table(self._native.rows(weight.contiguous(), self._compute))

    def tied(self, spec: LinearSpec, weight: Tensor) -> tuple[Embedding, Linear]:
        placed = self._placed(weight)
        return self.embedding(placed), self._over(placed, spec, None)

    def _over(self, weight: Tensor, spec: LinearSpec, bias: Tensor | None) -> Linear:
        many = super().linear(spec, weight, bias)
        few = self._native.prepare(Plain(weight, bias, spec.activation), self._compute)
        return ByRows(few, many, self._most)

    def _placed(self, weight: Tensor) -> Tensor:
        rows = weight.contiguous().view(torch.uint8)
        return self._pages.place(rows).view(weight.dtype)


class Table:
    """A table that is looked up by native code."""

    def __init__(self, rows: PreparedRows) -> None:
        self._rows = rows

    def __call__(self, ids: Tensor) -> Tensor:
        return self._rows(ids)

    def plus(self, ids: Tensor, other: Embedding, places: Tensor) -> Tensor:
        if isinstance(other, Table):
            return self._rows.plus(ids, other._rows, places)
        return self(ids) + other(places)


class ByRows:
    """A matrix of which few rows go one way and more the other."""

    def __init__(self, few: Prepared, many: Linear, most: int) -> None:
        self._few, self._many, self._most = few, many, most

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if x.shape[0] <= self._most:
            return self._few(x, residual)
        y: Tensor = self._many(x, residual)
        return y


class OnlyTorch(Dense):
    """Where nothing can be compiled. note: for the operator."""

    def __init__(self, kernel: LinearKernel, compute: torch.dtype, note: str) -> None:
        super().__init__(kernel, compute)
        self.notes = (note,)
