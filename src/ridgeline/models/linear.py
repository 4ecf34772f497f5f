"""How a model's matrices are held: the seam of weight quantisation. Knows one matrix at a time; knows no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.device.base import BYTES_OF, Device
from ridgeline.ops.activation import ACTIVATIONS
from ridgeline.ops.linear import LinearKernel, linear_kernel
from ridgeline.ops.norm import layer_norm

Norm = Callable[[Any], Any]
"""x: [tokens, d], or a Promise. Returns what the scheme's own matrices take for its normalised x."""


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


@runtime_checkable
class Promised(Protocol):
    """A tensor that somebody else may compute on the way to something."""

    @property
    def shape(self) -> torch.Size: ...

    def whole(self) -> Tensor: ...


Promise = Tensor | Promised


def whole(x: Promise) -> Tensor:
    return x if isinstance(x, Tensor) else x.whole()


class Linear(Protocol):
    def __call__(self, x: Any, residual: Any = None) -> Any:
        """x: [tokens, d_in], or what the norm returned. Returns residual + activation(W x + b), [tokens, d_out]; with a
        residual a Promise of it, which may be the next residual and which the scheme's own norms take."""
        ...


class Embedding(Protocol):
    def __call__(self, ids: Tensor) -> Tensor:
        """ids: [tokens]. Returns [tokens, d] in the format of activations."""
        ...


@runtime_checkable
class Adding(Embedding, Protocol):
    """A table that looks up the rows of another as well."""

    def plus(self, ids: Tensor, other: Embedding, places: Tensor) -> Tensor:
        """Its rows of `ids` and the other's of `places`, added. ids, places: [tokens]."""
        ...


@runtime_checkable
class Greedy(Linear, Protocol):
    """A head that chooses too."""

    def greedy(self, x: Any) -> tuple[Tensor, Tensor]:
        """x as called with. Returns logits [rows, vocab], and as ops.sample.greedy the likeliest of each, [rows]
        int64."""
        ...


W_contra = TypeVar("W_contra", contravariant=True)


class SchemeOf(Protocol[W_contra]):
    """Turns a weight [d_out, d_in] into an object that multiplies by it. notes: for the operator. W: what it takes for
    a weight that is multiplied by; tables that are only looked up are tensors.

    row_invariant: whether what its linears give a row is bitwise the same whatever the other rows are.
    """

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def row_invariant(self) -> bool: ...

    def linear(self, spec: LinearSpec, weight: W_contra, bias: Tensor | None) -> Linear: ...

    def embedding(self, weight: Tensor) -> Embedding: ...

    def tied(self, spec: LinearSpec, weight: W_contra) -> tuple[Embedding, Linear]:
        """A table that is looked up and multiplied by, and held once."""
        ...

    def norm(self, weight: Tensor, bias: Tensor, eps: float) -> Norm:
        """weight, bias: [d], in the format of activations."""
        ...


Scheme = SchemeOf[Tensor]


class Offered(Protocol):
    """What `quantize` names (models/schemes.py): whether tokens are the same as without it (exact), how many bits of
    memory a weight takes, and the scheme."""

    exact: bool

    @classmethod
    def of(cls, device: Device, cache: Path | None) -> Scheme:
        """cache: where compiled kernels are kept. Raises ConfigError where the device cannot do it."""
        ...

    @classmethod
    def bits(cls, device: Device) -> float: ...


class PlainNorms:
    """Of schemes that normalise before they multiply."""

    def norm(self, weight: Tensor, bias: Tensor, eps: float) -> Norm:
        return partial(layer_norm, weight=weight, bias=bias, eps=eps)


class Dense(PlainNorms):
    """Weights as they are. kernel: ops.linear.linear_kernel(device); compute: the format of activations."""

    exact = True
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, device: Device, cache: Path | None) -> Dense:  # noqa: ARG003 - it compiles nothing
        return cls(linear_kernel(device), device.compute)

    @classmethod
    def bits(cls, device: Device) -> float:
        return 8.0 * BYTES_OF[device.dtype]

    def __init__(self, kernel: LinearKernel, compute: torch.dtype) -> None:
        self._kernel, self._compute = kernel, compute

    @property
    def row_invariant(self) -> bool:
        """As its kernel says; one that says nothing promises nothing."""
        return bool(getattr(self._kernel, "row_invariant", False))

    def linear(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> Linear:
        assert weight.shape == (spec.d_out, spec.d_in), f"{spec.name}: {tuple(weight.shape)}"
        assert (bias is not None) == spec.bias, spec.name
        bias = None if bias is None else bias.to(self._compute)
        if spec.activation is None:
            return DenseLinear(self._kernel, weight, bias)
        return DenseActivated(self._kernel, weight, bias, spec.activation)

    def embedding(self, weight: Tensor) -> Embedding:
        return DenseEmbedding(weight, self._compute)

    def tied(self, spec: LinearSpec, weight: Tensor) -> tuple[Embedding, Linear]:
        return self.embedding(weight), self.linear(spec, weight, None)


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
