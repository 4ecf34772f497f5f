"""How a matrix on a GPU multiplies more rows than a handful. Knows one matrix; knows no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ridgeline.models.linear import Promise, whole
from ridgeline.ops import many
from ridgeline.ops.float8 import Scaled, fits
from ridgeline.ops.gemv import LayerNorm
from ridgeline.ops.lazy import Lazy
from ridgeline.ops.library import product
from ridgeline.ops.many import ManyRows
from ridgeline.ops.norm import layer_norm
from ridgeline.ops.words import Words


class Sum:
    """y + residual, not added yet; y may be written. Whoever looks first adds."""

    def __init__(self, y: Tensor, residual: Tensor) -> None:
        self._parts: tuple[Tensor, Tensor] | None = (y, residual)
        self._total, self.shape = y, y.shape

    def whole(self) -> Tensor:
        if self._parts is not None:
            y, residual = self._parts
            self._parts, self._total = None, y.add_(residual)
        return self._total

    def normed(self, given: LayerNorm) -> Tensor:
        """layer_norm of it."""
        if self._parts is None:
            return layer_norm(self._total, given.weight, given.bias, given.eps)
        parts, self._parts = self._parts, None
        made: tuple[Tensor, Tensor] = _ADD_LAYER_NORM(*parts, given.weight, given.bias, given.eps)
        self._total = made[0]
        return made[1]


_ADD_LAYER_NORM = Lazy("ridgeline.ops.fused_triton", "add_layer_norm")


class Deferred:
    """A norm that computes nothing."""

    def __init__(self, given: LayerNorm) -> None:
        self.given = given

    def __call__(self, x: Promise) -> Unnormed:
        return Unnormed(x, self)


@dataclass(frozen=True, slots=True)
class Unnormed:
    """x, to be normalised by whoever multiplies it."""

    x: Promise
    norm: Deferred

    def normed(self) -> Tensor:
        given = self.norm.given
        if isinstance(self.x, Sum):
            return self.x.normed(given)
        return layer_norm(whole(self.x), given.weight, given.bias, given.eps)


def normed(x: Tensor | Unnormed) -> Tensor:
    return x.normed() if isinstance(x, Unnormed) else x


class Many(Protocol):
    """A matrix for many rows. Returns activation(W x + b), [rows, padded d_out], which the caller may write."""

    def __call__(self, x: Tensor | Unnormed) -> Tensor: ...


class Library:
    """A matrix as it is. weight, bias: padded."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
        self._weight, self._bias, self._activation = weight, bias, activation

    def __call__(self, x: Tensor | Unnormed) -> Tensor:
        return product(normed(x), self._weight, self._bias, self._activation)


Hold = Callable[[Words, Tensor | None, str | None, torch.dtype], Many]
"""(weight, bias, activation, format of activations) -> who multiplies by it; weight and bias padded alike."""


class Widened:
    """A matrix of fewer bits, made whole at every call. kernels: None: by the definition."""

    def __init__(
        self, weight: Words, bias: Tensor | None, activation: str | None, compute: torch.dtype,
        kernels: ManyRows | None = None,
    ) -> None:  # fmt: skip
        self._weight, self._bias, self._activation, self._compute = weight, bias, activation, compute
        self._widened = many.widened if kernels is None else kernels.widened

    def __call__(self, x: Tensor | Unnormed) -> Tensor:
        matrix = self._widened(self._weight, self._compute)
        return product(normed(x), matrix, self._bias, self._activation)


class InTiles:
    """A matrix of fewer bits, widened in registers for as many rows as that pays for, and whole for more."""

    def __init__(
        self, kernels: ManyRows, weight: Words, bias: Tensor | None, activation: str | None, compute: torch.dtype
    ) -> None:
        self._kernels, self._weight, self._bias, self._activation = kernels, weight, bias, activation
        self._more = Widened(weight, bias, activation, compute, kernels)

    def __call__(self, x: Tensor | Unnormed) -> Tensor:
        given = normed(x)
        if given.shape[0] > self._kernels.most:
            return self._more(given)
        return self._kernels.linear(given, self._weight, self._bias, self._activation, None)


class Float8Rows:
    """A matrix of 8-bit floats, by rows that become 8-bit floats on the way, with their norm."""

    def __init__(self, scaled: Scaled, weight: Words, bias: Tensor | None, activation: str | None) -> None:
        self._scaled, self._weight, self._bias, self._activation = scaled, weight, bias, activation

    def __call__(self, x: Tensor | Unnormed) -> Tensor:
        given, norm = (whole(x.x), x.norm.given) if isinstance(x, Unnormed) else (x, None)
        return self._scaled.linear(given, norm, self._weight, self._bias, self._activation, None)


def holding(kernels: ManyRows | None, scaled: Scaled | None = None) -> Hold:
    """The best of what there is for each matrix."""

    def hold(weight: Words, bias: Tensor | None, activation: str | None, compute: torch.dtype) -> Many:
        if scaled is not None and fits(weight):
            return Float8Rows(scaled, weight, bias, activation)
        if kernels is not None:
            return InTiles(kernels, weight, bias, activation, compute)
        return Widened(weight, bias, activation, compute)

    return hold
