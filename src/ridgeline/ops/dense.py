"""y = residual + activation(x W^T + b) for a W as it is: the definition, and native code that reads W once for a few
rows.

What it takes is what PyTorch takes, so the same matrix serves both. Sums are float32.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ridgeline.device import jit
from ridgeline.device.base import Device
from ridgeline.device.recording import call, hold
from ridgeline.device.team import team
from ridgeline.ops import calls
from ridgeline.ops.declared import bytes_of, declare

SOURCE = calls.FOLDER / "dense.cpp"
_FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


@dataclass(frozen=True, slots=True)
class Plain:
    """weight: [d_out, d_in], contiguous, float32 or of 16 bits. bias: [d_out], in any format. activation: a name in
    ops.activation."""

    weight: Tensor
    bias: Tensor | None = None
    activation: str | None = None


def plain_linear(x: Tensor, layer: Plain, residual: Tensor | None = None) -> Tensor:
    """The definition. x: [rows, d_in]; residual: [rows, d_out]. Returns [rows, d_out], all in x's format."""
    wide, weight = x.to(torch.float32), layer.weight.to(torch.float32)
    return calls.defined(wide, weight, layer.bias, layer.activation, residual, x.dtype)


class _Plain(ctypes.Structure):
    """As native/dense.cpp has it."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("team", ctypes.c_void_p),
        ("d_in", ctypes.c_int64),
        ("d_out", ctypes.c_int64),
        ("format", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("is_bfloat16", ctypes.c_int32),
        ("unused", ctypes.c_int32),
    )


class Native:
    """The compiled library. `prepare` a layer once; what it returns multiplies, and gives a row the same bits whatever
    the other rows are."""

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        """library: of SOURCE."""
        self._run: Any = library.ridgeline_dense
        self._run.argtypes, self._run.restype = (ctypes.c_void_p,) * 4 + (ctypes.c_int64,), ctypes.c_int
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._norm: Any = library.ridgeline_dense_norm
        self._norm.argtypes, self._norm.restype = (pointer, pointer, pointer, size), ctypes.c_int
        self._rows: Any = library.ridgeline_dense_rows
        self._rows.argtypes, self._rows.restype = (*(pointer,) * 4, size), ctypes.c_int
        self._team = team(library, threads)
        self.has_squares = bool(library.ridgeline_has_squares())
        """Whether a matrix unit multiplies rows of bfloat16, as many as there are."""

    def prepare(self, layer: Plain, dtype: torch.dtype) -> Prepared:
        """dtype: of x and y: float32, or the weight's if that is bfloat16."""
        return Prepared(self._run, layer, dtype, self._team)

    def norm(self, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> PreparedNorm:
        """weight, bias: [d], in any format. dtype: of what is normalised, float32 or bfloat16."""
        return PreparedNorm(self._norm, weight, bias, eps, dtype, self._team)

    def rows(self, table: Tensor, dtype: torch.dtype) -> PreparedRows:
        """table: [ids, d], contiguous, float32 or of 16 bits. dtype: that rows come out in, float32 or bfloat16."""
        return PreparedRows(self._rows, table, dtype, self._team)


def build(cache: Path | None) -> ctypes.CDLL:
    """As calls.library has it."""
    return calls.library(SOURCE, cache)


class Prepared:
    """A layer as native code sees it."""

    def __init__(self, run: Any, layer: Plain, dtype: torch.dtype, team: int) -> None:
        weight, bias = layer.weight, layer.bias
        assert weight.is_contiguous()
        assert dtype is torch.float32 or dtype is weight.dtype is torch.bfloat16, (dtype, weight.dtype)
        if bias is not None:
            bias = bias.to(torch.float32).contiguous()
        self._held = (weight, bias)  # the structure below has only their addresses
        d_out, d_in = self._shape = (weight.shape[0], weight.shape[1])
        self._told = _Plain(
            weight=weight.data_ptr(),
            bias=None if bias is None else bias.data_ptr(),
            d_in=d_in,
            d_out=d_out,
            format=_FORMATS[weight.dtype],
            activation=calls.NUMBERS[layer.activation],
            is_bfloat16=dtype is torch.bfloat16,
            team=team,
        )
        self._at = ctypes.addressof(self._told)
        self._run, self._dtype = run, dtype

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y, before = calls.checked(x, residual, self._shape, self._dtype)
        calls.written(y, call(self._run, self._at, x.data_ptr(), before, y.data_ptr(), len(y)))
        declare(lambda: bytes_of(x, *self._held, residual, y))
        return y


class _Norm(ctypes.Structure):
    """As native/plain.h has it."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("team", ctypes.c_void_p),
        ("d", ctypes.c_int64),
        ("eps", ctypes.c_float),
        ("is_bfloat16", ctypes.c_int32),
    )


class PreparedNorm:
    """A norm as native code sees it."""

    def __init__(
        self, run: Any, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype, team: int
    ) -> None:  # fmt: skip
        self._held = weight, bias = weight.to(torch.float32).contiguous(), bias.to(torch.float32).contiguous()
        self._told = _Norm(weight.data_ptr(), bias.data_ptr(), team, len(weight), eps, int(dtype is torch.bfloat16))
        self._at, self._run, self._dtype = ctypes.addressof(self._told), run, dtype

    def __call__(self, x: Tensor) -> Tensor:
        """x: [rows, d]."""
        d = self._told.d
        assert (x.dtype, x.shape[1], x.is_contiguous()) == (self._dtype, d, True), (x.dtype, x.shape)
        y = torch.empty(x.shape[0], d, dtype=self._dtype)
        call(self._run, self._at, x.data_ptr(), y.data_ptr(), len(y))
        declare(lambda: bytes_of(x, *self._held, y))
        return y


class _Rows(ctypes.Structure):
    """As native/plain.h has it."""

    _fields_ = (
        ("first", ctypes.c_void_p),
        ("second", ctypes.c_void_p),
        ("team", ctypes.c_void_p),
        ("d", ctypes.c_int64),
        ("format", ctypes.c_int32),
        ("is_bfloat16", ctypes.c_int32),
    )


class PreparedRows:
    """A table as native code sees it."""

    def __init__(self, run: Any, table: Tensor, dtype: torch.dtype, team: int) -> None:
        assert table.is_contiguous()
        self._run, self._table, self._dtype, self._team = run, table, dtype, team
        self._alone = self._with(None)

    def __call__(self, ids: Tensor) -> Tensor:
        """ids: [tokens], int64 or int32. Returns their rows, [tokens, d]."""
        return self._looked_up(self._alone, ids, None)

    def plus(self, ids: Tensor, other: PreparedRows, places: Tensor) -> Tensor:
        """Its rows of `ids` and the other's of `places`, added before they are rounded, [tokens, d]. Both tables are of
        one format."""
        assert (other._table.dtype, other._table.shape[1]) == (self._table.dtype, self._table.shape[1])
        return self._looked_up(hold(self._with(other._table)), ids, calls.in_longs(places))

    def _with(self, other: Tensor | None) -> _Rows:
        table = self._table
        second = None if other is None else other.data_ptr()
        is_bfloat16 = int(self._dtype is torch.bfloat16)
        return _Rows(table.data_ptr(), second, self._team, table.shape[1], _FORMATS[table.dtype], is_bfloat16)

    def _looked_up(self, told: _Rows, ids: Tensor, places: Tensor | None) -> Tensor:
        ids = calls.in_longs(ids)
        y = torch.empty(len(ids), self._table.shape[1], dtype=self._dtype)
        at = None if places is None else places.data_ptr()
        call(self._run, ctypes.addressof(told), ids.data_ptr(), at, y.data_ptr(), len(ids))
        tables = 1 if places is None else 2
        declare(lambda: bytes_of(ids, places, y) + tables * y.numel() * self._table.element_size())
        return y


def norm_by_native_code(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """As OPS has it."""
    return _of_this_process().norm(weight, bias, eps, x.dtype)(x)


def by_native_code(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A layer by its tensors, as OPS has it."""
    return _of_this_process().prepare(Plain(weight, bias), x.dtype)(x)


def has_native_code(device: Device) -> bool:
    return jit.serves(device, _of_this_process)


@cache
def _of_this_process() -> Native:
    """Raises CannotBuild."""
    return Native(build(None), torch.get_num_threads())
