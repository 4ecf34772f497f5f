"""Int8 and Int4: matrices of integers on a CPU. Knows one matrix at a time, and not how its integers are laid out.

Matrix by matrix as a checkpoint is read, so the whole model is never held twice. A table that is the head as well is
held once; tables that are only looked up keep 8 bits a value, because a step reads a few of their rows.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ridgeline.core.errors import ConfigError
from ridgeline.device.base import Device
from ridgeline.device.jit import CannotBuild
from ridgeline.device.pages import LargePages
from ridgeline.models.linear import Embedding, Linear, LinearSpec, Norm, whole
from ridgeline.models.many_rows import Deferred, Unnormed, normed
from ridgeline.ops.gemv import LayerNorm
from ridgeline.ops.packed import BITS, MAX_WIDTH, Packed
from ridgeline.ops.quantised import ByteRows, Layer, Native, Prepared, gathered, quantised_linear


class Integers:
    """native: None multiplies by the definition. compute: the format of activations. A weight is a tensor of any
    format, or packed already in this scheme's bits."""

    exact: ClassVar[bool] = False
    name: ClassVar[str]
    code_bits: ClassVar[int]

    def __init__(self, native: Native | None, compute: torch.dtype, notes: tuple[str, ...] = ()) -> None:
        self._native, self._compute, self.notes = native, compute, notes
        self._pages = LargePages()

    @classmethod
    def of(cls, device: Device, cache: Path | None) -> Integers:
        try:
            return cls(Native(cache, torch.get_num_threads()), device.compute)
        except CannotBuild as error:
            slow = f"--quantize {cls.name} runs without its kernels, many times slower, because {error}."
            return cls(None, device.compute, (slow,))

    @property
    def row_invariant(self) -> bool:
        """The kernels add integers, whose sums are the same in every order."""
        return self._native is not None

    @classmethod
    def bits(cls, device: Device) -> float:  # noqa: ARG003 - the same on all of them
        return BITS[cls.code_bits]

    def linear(self, spec: LinearSpec, weight: Tensor | Packed, bias: Tensor | None) -> Linear:
        assert (bias is not None) == spec.bias, spec.name
        return self._multiplying(spec, Layer(self._placed(spec, weight), bias, spec.activation, _given(spec)))

    def norm(self, weight: Tensor, bias: Tensor, eps: float) -> Norm:
        """Computed by the matrix behind it."""
        return Deferred(LayerNorm(weight, bias, eps))

    def embedding(self, weight: Tensor) -> Embedding:
        return Rows(weight, self._compute)

    def tied(self, spec: LinearSpec, weight: Tensor | Packed) -> tuple[Embedding, Linear]:
        layer = Layer(self._placed(spec, weight), norm=_given(spec))
        head = self._multiplying(spec, layer)
        return head.rows if isinstance(head, Behind) else DefinedRows(layer.weight, self._compute), head

    def packed(self, name: str, weight: Tensor) -> Packed:
        """weight: [d_out, d_in], of any format. name: of whose it is. Raises ConfigError."""
        if weight.shape[1] > MAX_WIDTH:
            raise ConfigError(
                f"--quantize {self.name}: {name} has {weight.shape[1]} inputs, and sums of more than {MAX_WIDTH} may "
                "not fit 32 bits; leave it out for this model"
            )
        return (Packed.of if self._native is None else self._native.pack)(weight, self.code_bits)

    def _placed(self, spec: LinearSpec, weight: Tensor | Packed) -> Packed:
        packed = weight if isinstance(weight, Packed) else self.packed(spec.name, weight)
        found = (packed.bits, packed.d_out, packed.d_in)
        assert found == (self.code_bits, spec.d_out, spec.d_in), f"{spec.name}: {found}"
        return dataclasses.replace(packed, strips=self._pages.place(packed.strips))

    def _multiplying(self, spec: LinearSpec, layer: Layer) -> Behind | Defined:
        return Defined(layer) if self._native is None else Behind(self._native.prepare(layer, self._compute), spec.norm)


def _given(spec: LinearSpec) -> LayerNorm | None:
    return spec.norm.given if isinstance(spec.norm, Deferred) else None


class Int8(Integers):
    name, code_bits = "int8", 8


class Int4(Integers):
    name, code_bits = "int4", 4


class Rows:
    """A table that is only looked up: bytes, and a scale a row."""

    def __init__(self, weight: Tensor, compute: torch.dtype) -> None:
        self.table, self._compute = ByteRows.of(weight), compute

    def __call__(self, ids: Tensor) -> Tensor:
        return self.table.values(ids).to(self._compute)


class TiedRows:
    """A table whose matrix is multiplied by too."""

    def __init__(self, made: Prepared) -> None:
        self._made = made

    def __call__(self, ids: Tensor) -> Tensor:
        return self._made.gather(ids)

    def plus(self, ids: Tensor, other: Embedding, places: Tensor) -> Tensor:
        if isinstance(other, Rows):
            return self._made.gather_sum(ids, other.table, places)
        return self(ids) + other(places)


class Behind:
    """A matrix behind a norm, which is computed on the way where it is its own."""

    def __init__(self, made: Prepared, norm: Norm | None) -> None:
        self._made, self._norm = made, norm
        self.rows = TiedRows(made)

    def __call__(self, x: Tensor | Unnormed, residual: Tensor | None = None) -> Tensor:
        if isinstance(x, Unnormed):
            if x.norm is self._norm:
                return self._made.behind_norm(whole(x.x), residual)
            x = x.normed()
        return self._made(x, residual)


class Defined:
    """The definition, where nothing can be compiled."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def __call__(self, x: Tensor | Unnormed, residual: Tensor | None = None) -> Tensor:
        return quantised_linear(normed(x), self._layer, residual)


class DefinedRows:
    def __init__(self, table: Packed, compute: torch.dtype) -> None:
        self._table, self._compute = table, compute

    def __call__(self, ids: Tensor) -> Tensor:
        return gathered(ids, self._table, self._compute)
