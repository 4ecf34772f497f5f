"""How a model's matrices are held: the seam of weight quantisation. Knows one matrix at a time; knows no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.ops.activation import ACTIVATIONS
from ridgeline.ops.linear import LinearKernel
from ridgeline.ops.norm import layer_norm

Norm = Callable[[Tensor], Any]
"""x: [tokens, d]. Returns what the scheme's own matrices take for its normalised x: a tensor, or a promise of one."""


@dataclass(frozen=True, slots=True)
class LinearSpec:
    """A matrix by its place. parts: what its outputs are, in order, for schemes that treat them apart (q, k, v).

    activation: a name in ops.activation, or None. norm: what it multiplies comes from there, made by the same scheme.
    """

    name: str
    parts: tuple[str, ...]
    d_in: int
    d_out: int
    bias: bool = True
    activation: str | None = None
    norm: Norm | None = None


class Linear(Protocol):
    def __call__(self, x: Any, residual: Tensor | None = None) -> Tensor:
        """x: [tokens, d_in], or what the norm returned. Returns residual + activation(W x + b), [tokens, d_out]."""
        ...


class Embedding(Protocol):
    def __call__(self, ids: Tensor) -> Tensor:
        """ids: [tokens]. Returns [tokens, d] in the format of activations."""
        ...


class Scheme(Protocol):
    """Turns a weight [d_out, d_in] into an object that multiplies by it."""

    def linear(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> Linear: ...

    def embedding(self, weight: Tensor) -> Embedding: ...

    def norm(self, weight: Tensor, bias: Tensor, eps: float) -> Norm:
        """weight, bias: [d], in the format of activations."""
        ...


class PlainNorms:
    """Of schemes that normalise before they multiply."""

    def norm(self, weight: Tensor, bias: Tensor, eps: float) -> Norm:
        return partial(layer_norm, weight=weight, bias=bias, eps=eps)


class Dense(PlainNorms):
    """Weights as they are. kernel: ops.linear.linear_kernel(device); compute: the format of activations."""

    def __init__(self, kernel: LinearKernel, compute: torch.dtype) -> None:
        self._kernel, self._compute = kernel, compute

    def linear(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> Linear:
        assert weight.shape == (spec.d_out, spec.d_in), f"{spec.name}: {tuple(weight.shape)}"
        assert (bias is not None) == spec.bias, spec.name
        bias = None if bias is None else bias.to(self._compute)
        if spec.activation is None:
            return DenseLinear(self._kernel, weight, bias)
        return DenseActivated(self._kernel, weight, bias, spec.activation)

    def embedding(self, weight: Tensor) -> Embedding:
        return DenseEmbedding(weight, self._compute)


class DenseLinear:
    def __init__(self, kernel: LinearKernel, weight: Tensor, bias: Tensor | None) -> None:
        self._kernel, self._weight, self._bias = kernel, weight, bias

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = self._kernel(x, self._weight, self._bias)
        return y if residual is None else y.add_(residual)


class DenseActivated:
    def __init__(self, kernel: LinearKernel, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        self._inner = DenseLinear(kernel, weight, bias)
        self._activation = ACTIVATIONS[activation]

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = self._activation(self._inner(x))
        return y if residual is None else y.add_(residual)


class DenseEmbedding:
    def __init__(self, weight: Tensor, compute: torch.dtype) -> None:
        self._weight, self._compute = weight, compute

    def __call__(self, ids: Tensor) -> Tensor:
        return functional.embedding(ids, self._weight).to(self._compute)
