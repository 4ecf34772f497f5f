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
from ridgeline.device.recording import call
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
        self._team = team(library, threads)
        self.has_squares = bool(library.ridgeline_has_squares())
        """Whether a matrix unit multiplies rows of bfloat16, as many as there are."""

    def prepare(self, layer: Plain, dtype: torch.dtype) -> Prepared:
        """dtype: of x and y: float32, or the weight's if that is bfloat16."""
        return Prepared(self._run, layer, dtype, self._team)


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


def by_native_code(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A layer by its tensors, as OPS has it."""
    return _of_this_process().prepare(Plain(weight, bias), x.dtype)(x)


def has_native_code(device: Device) -> bool:
    return jit.serves(device, _of_this_process)


@cache
def _of_this_process() -> Native:
    """Raises CannotBuild."""
    return Native(build(None), torch.get_num_threads())
