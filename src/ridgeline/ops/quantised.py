"""y = residual + activation(x W^T + b) for a packed W: the definition, and native code that does it in one call.

Activations are rounded row by row to unsigned bytes with a scale and a zero of their own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.device import jit
from ridgeline.device.base import Device
from ridgeline.device.recording import call, hold
from ridgeline.device.team import team
from ridgeline.ops import calls
from ridgeline.ops.declared import bytes_of, declare
from ridgeline.ops.gemv import LayerNorm
from ridgeline.ops.norm import layer_norm_by_hand
from ridgeline.ops.packed import LANES, Packed

SOURCE = calls.FOLDER / "linear.cpp"


@dataclass(frozen=True, slots=True)
class Layer:
    """bias: [d_out], in any format. activation: a name in ops.activation. norm: what rows may come through."""

    weight: Packed
    bias: Tensor | None = None
    activation: str | None = None
    norm: LayerNorm | None = None


def rounded(x: Tensor) -> Tensor:
    """x: [rows, d_in]. What is left of x as bytes: float32, 256 values a row, of which 0 is one."""
    wide = x.to(torch.float32)
    low, high = wide.amin(1, keepdim=True).clamp(max=0), wide.amax(1, keepdim=True).clamp(min=0)
    scale = (high - low) / 255
    inverse = torch.where(scale > 0, 1 / scale, 0)
    zero = torch.round(-low * inverse)
    return (torch.clamp(torch.round(wide * inverse) + zero, 0, 255) - zero) * scale


def quantised_linear(x: Tensor, layer: Layer, residual: Tensor | None = None) -> Tensor:
    """The definition. x: [rows, d_in]; residual: [rows, d_out]. Returns [rows, d_out], all in x's format."""
    return calls.defined(rounded(x), layer.weight.values(), layer.bias, layer.activation, residual, x.dtype)


def normed_linear(x: Tensor, layer: Layer, residual: Tensor | None = None) -> Tensor:
    """The definition: of x behind the layer's norm, which is not rounded to x's format on the way."""
    assert layer.norm is not None
    weight, bias = (part.to(torch.float32) for part in (layer.norm.weight, layer.norm.bias))
    wide = layer_norm_by_hand(x.to(torch.float32), weight, bias, layer.norm.eps)
    return quantised_linear(wide, layer, None if residual is None else residual.to(torch.float32)).to(x.dtype)


def gathered(ids: Tensor, table: Packed, dtype: torch.dtype) -> Tensor:
    """The definition. Rows of a table, [ids, d_in]."""
    return table.values()[ids].to(dtype)


class _Matrix(ctypes.Structure):
    """As native/linear.cpp has it."""

    _fields_ = (
        ("strips", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("team", ctypes.c_void_p),
        ("d_in", ctypes.c_int64),
        ("d_out", ctypes.c_int64),
        ("strip_bytes", ctypes.c_int64),
        ("bits", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("is_bfloat16", ctypes.c_int32),
        ("unused", ctypes.c_int32),
    )


class _Norm(ctypes.Structure):
    """As native/rows.h has it."""

    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("eps", ctypes.c_float))


class _ByteTable(ctypes.Structure):
    """As native/linear.cpp has it."""

    _fields_ = (("codes", ctypes.c_void_p), ("scales", ctypes.c_void_p), ("ids", ctypes.c_void_p))


class Native:
    """The compiled library. `prepare` a layer once; what it returns multiplies."""

    def __init__(self, cache: Path | None, threads: int) -> None:
        """cache: as calls.library has it. Raises CannotBuild."""
        library = calls.library(SOURCE, cache)
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._linear: Any = library.ridgeline_linear
        self._linear.argtypes, self._linear.restype = (*(pointer,) * 5, size), ctypes.c_int
        self._gather: Any = library.ridgeline_gather
        self._gather.argtypes, self._gather.restype = (*(pointer,) * 4, size), ctypes.c_int
        self._pack: Any = library.ridgeline_pack
        self._pack.argtypes, self._pack.restype = (pointer, pointer, pointer, pointer, pointer), ctypes.c_int
        self._team = team(library, threads)

    def pack(self, weight: Tensor, bits: int) -> Packed:
        """As Packed.of, ten times as fast; of multipliers that lose nearly the same it may take another."""
        if weight.dtype not in (torch.float32, torch.bfloat16):
            weight = weight.to(torch.float32)
        weight, (d_out, d_in) = weight.contiguous(), weight.shape
        packed = Packed.empty(bits, d_out, d_in)
        told = _Matrix(
            d_in=d_in,
            d_out=d_out,
            strip_bytes=packed.strips.shape[1],
            bits=bits,
            is_bfloat16=weight.dtype is torch.bfloat16,
            team=self._team,
        )
        made = (part.data_ptr() for part in (packed.strips, packed.scales, packed.sums))
        if self._pack(ctypes.addressof(told), weight.data_ptr(), *made):
            raise MemoryError(f"no memory to pack a matrix of {d_out} x {d_in}")
        return packed

    def prepare(self, layer: Layer, dtype: torch.dtype) -> Prepared:
        """dtype: of x and y, float32 or bfloat16."""
        return Prepared(self._linear, self._gather, layer, dtype, self._team)


class Prepared:
    """A layer as native code sees it."""

    def __init__(self, linear: Any, gather: Any, layer: Layer, dtype: torch.dtype, team: int) -> None:
        assert dtype in (torch.float32, torch.bfloat16), dtype
        weight, bias = layer.weight, layer.bias
        bias = None if bias is None else _in_lanes(bias)
        self._norm, norm_parts = _norm_of(layer.norm)
        # The structures have only their addresses.
        self._tensors = (weight.strips, weight.scales, weight.sums, bias, *norm_parts)
        self._told = _Matrix(
            strips=weight.strips.data_ptr(),
            scales=weight.scales.data_ptr(),
            sums=weight.sums.data_ptr(),
            bias=None if bias is None else bias.data_ptr(),
            d_in=weight.d_in,
            d_out=weight.d_out,
            strip_bytes=weight.strips.shape[1],
            bits=weight.bits,
            activation=calls.NUMBERS[layer.activation],
            is_bfloat16=dtype is torch.bfloat16,
            team=team,
        )
        self._at = ctypes.addressof(self._told)
        self._linear, self._gather = linear, gather
        self._dtype, self._shape = dtype, (weight.d_out, weight.d_in)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        return self._run(x, None, residual)

    def behind_norm(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Of x after the layer's norm."""
        assert self._norm is not None
        return self._run(x, ctypes.addressof(self._norm), residual)

    def _run(self, x: Tensor, norm: int | None, residual: Tensor | None) -> Tensor:
        y, before = calls.checked(x, residual, self._shape, self._dtype)
        calls.written(y, call(self._linear, self._at, x.data_ptr(), norm, before, y.data_ptr(), len(y)))
        declare(lambda: bytes_of(x, *self._tensors, residual, y))
        return y

    def gather(self, ids: Tensor) -> Tensor:
        """ids: [tokens], int64 or int32. Returns their rows, [tokens, d_in]."""
        return self._looked_up(ids, None)

    def gather_sum(self, ids: Tensor, other: ByteRows, places: Tensor) -> Tensor:
        """ids, places: [tokens], int64 or int32. Returns the rows of `ids` and the other's of `places`, added before
        they are rounded, [tokens, d_in]."""
        places = calls.in_longs(places)
        added = hold(_ByteTable(other.codes.data_ptr(), other.scales.data_ptr(), places.data_ptr()))
        return self._looked_up(ids, ctypes.addressof(added))

    def _looked_up(self, ids: Tensor, other: int | None) -> Tensor:
        ids = calls.in_longs(ids)
        y = torch.empty(len(ids), self._shape[1], dtype=self._dtype)
        call(self._gather, self._at, ids.data_ptr(), other, y.data_ptr(), len(ids))
        declare(lambda: bytes_of(ids, y) + int(y.numel() * self._told.bits / 8) * (1 if other is None else 2))
        return y


@dataclass(frozen=True, slots=True)
class ByteRows:
    """A table that is only looked up. codes: [rows, d] int8; scales: [rows, 1] float32."""

    codes: Tensor
    scales: Tensor

    @staticmethod
    def of(weight: Tensor) -> ByteRows:
        wide = weight.to(torch.float32)
        scales = wide.abs().amax(1, keepdim=True) / 127
        return ByteRows(torch.round(wide / scales.where(scales > 0, torch.ones(()))).to(torch.int8), scales)

    def values(self, ids: Tensor) -> Tensor:
        """The definition. float32 [ids, d]."""
        return self.codes[ids] * self.scales[ids]


def _in_lanes(vector: Tensor) -> Tensor:
    """As float32, filled up to whole vectors."""
    return functional.pad(vector.to(torch.float32), (0, -len(vector) % LANES)).contiguous()


def _norm_of(norm: LayerNorm | None) -> tuple[_Norm | None, tuple[Tensor, ...]]:
    """What native code sees, and what that points to."""
    if norm is None:
        return None, ()
    weight, bias = parts = _in_lanes(norm.weight), _in_lanes(norm.bias)
    return _Norm(weight.data_ptr(), bias.data_ptr(), norm.eps), parts


Flat = Callable[..., Tensor]
"""(x, strips, scales, sums, bias) -> y: a layer by its tensors, as OPS has it; behind a norm where its weight, bias and
eps come after them."""


def reference(bits: int) -> Flat:
    def run(x: Tensor, *parts: Any) -> Tensor:
        layer = _layer(bits, x, *parts)
        return (quantised_linear if layer.norm is None else normed_linear)(x, layer)

    return run


def native(bits: int) -> Flat:
    def run(x: Tensor, *parts: Any) -> Tensor:
        layer = _layer(bits, x, *parts)
        made = _of_this_process().prepare(layer, x.dtype)
        return made(x) if layer.norm is None else made.behind_norm(x)

    return run


def _layer(bits: int, x: Tensor, strips: Tensor, scales: Tensor, sums: Tensor, bias: Tensor, *norm: Any) -> Layer:
    packed = Packed(bits, len(bias), x.shape[1], strips, scales, sums)
    return Layer(packed, bias, norm=LayerNorm(*norm) if norm else None)


def is_native(device: Device) -> bool:
    return jit.serves(device, _of_this_process)


@cache
def _of_this_process() -> Native:
    """Raises CannotBuild."""
    return Native(None, torch.get_num_threads())
