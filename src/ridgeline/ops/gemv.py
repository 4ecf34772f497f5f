"""y = residual + activation(W LN(x) + b), and the likeliest of y: the definitions, and who computes them for few rows.

Knows weights as Words; loads Triton's kernels only where they can run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.ops.activation import ACTIVATIONS
from ridgeline.ops.trials import once, surroundings
from ridgeline.ops.words import Words, plain

FIRST_DEPENDENT = (9, 0)
"""The compute capability that programmatic dependent launch came with."""
FIRST_TRITON = (7, 5)
FIRST_FLOAT8 = (8, 9)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """weight, bias: [d]."""

    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Layer:
    """A matrix and what is computed with it. bias: [d_out]. activation: a name in ops.activation.

    gains, gained, added: the norm and the bias as kernels want them, see ops/gemv_triton; made by `layer`.
    """

    weight: Words
    bias: Tensor | None = None
    norm: LayerNorm | None = None
    activation: str | None = None
    gains: Tensor | None = None
    gained: Tensor | None = None
    added: Tensor | None = None


def layer(
    weight: Words, bias: Tensor | None = None, norm: LayerNorm | None = None, activation: str | None = None
) -> Layer:
    """Computes what depends on weights alone. A kernel may read it before it waits for the kernel ahead, so the device
    must be done with it before the first use."""
    plus = None if bias is None else bias.to(torch.float32)
    if norm is None:
        return Layer(weight, bias, norm, activation, added=plus)
    values = weight.values()
    shift = torch.mv(values, norm.bias.to(torch.float32))
    gained = torch.mv(values, norm.weight.to(torch.float32))
    added = shift if plus is None else plus + shift
    return Layer(weight, bias, norm, activation, norm.weight, gained, added)


class FewRows(Protocol):
    """Products for 1 to `most` rows. dependent: kernels begin before the one ahead of them is done."""

    most: int
    dependent: bool

    def linear(self, x: Tensor, layer: Layer, residual: Tensor | None = None) -> Tensor:
        """As fused_linear."""
        ...

    def greedy_head(self, x: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
        """As greedy_head."""
        ...

    def greedy(self, logits: Tensor) -> Tensor:
        """As ops.sample.greedy, for any number of rows."""
        ...


def fused_linear(x: Tensor, layer: Layer, residual: Tensor | None = None) -> Tensor:
    """The definition. x: [rows, d_in]; residual: [rows, d_out]. Returns [rows, d_out] in x's format; everything in
    between is float32."""
    wide = x.to(torch.float32)
    if layer.norm is not None:
        weight, bias = (part.to(torch.float32) for part in (layer.norm.weight, layer.norm.bias))
        wide = functional.layer_norm(wide, (x.shape[1],), weight, bias, layer.norm.eps)
    y = torch.mm(wide, layer.weight.values().t())
    if layer.bias is not None:
        y += layer.bias.to(torch.float32)
    if layer.activation is not None:
        y = ACTIVATIONS[layer.activation](y)
    return (y if residual is None else y + residual).to(x.dtype)


def greedy_head(x: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    """The definition. Logits [rows, vocab] in x's format, and of each row the likeliest as they are rounded, the lowest
    of equal ones, [rows] int64."""
    logits = fused_linear(x, layer)
    return logits, torch.argmax(logits, -1)


class Choice(Protocol):
    """kernels: None: there are none for this device, or not yet. note: which, and why not better ones."""

    @property
    def kernels(self) -> FewRows | None: ...

    @property
    def note(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """A Choice that stays as it is."""

    kernels: FewRows | None
    note: str


def few_rows(device: torch.device, dtype: torch.dtype, cache: Path | None = None) -> Chosen:
    """The fastest that work here, tried on the device itself. cache: where it is kept that they do, if that took long
    to find out."""
    if device.type != "cuda":
        return Chosen(None, "fused products are for NVIDIA GPUs")
    if find_spec("triton") is None:
        return Chosen(None, "fused products need Triton, which is not installed")
    from ridgeline.ops import dependent_triton, gemv_triton

    capability = torch.cuda.get_device_capability(device)
    about = ("few rows", dtype, *surroundings(device, gemv_triton.__file__, dependent_triton.__file__))

    def try_out(few: FewRows) -> None:
        _try_out(few, device, dtype)

    tried = once(try_out, about, cache, lambda few: f"dependent {few.dependent}")
    return choose(capability, dependent_triton.CAN_DEPEND, gemv_triton.Kernels, tried)


def has_float8(device: torch.device) -> bool:
    """Whether a GPU converts 8-bit floats; a CPU runs the definition."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= FIRST_FLOAT8


def choose(
    capability: tuple[int, int],
    can_depend: bool,
    make: Callable[[bool], FewRows],
    try_out: Callable[[FewRows], None],
) -> Chosen:
    """can_depend: whether this Triton knows dependent launch. make: (dependent) -> kernels. try_out: raises for kernels
    that do not work."""
    name = f"compute capability {capability[0]}.{capability[1]}"
    if capability < FIRST_TRITON:
        return Chosen(None, f"fused products need compute capability 7.5; this is {name}")
    why = ""
    if capability < FIRST_DEPENDENT:
        why = f", without dependent launch ({name})"
    elif not can_depend:
        why = ", without dependent launch (this Triton does not know it)"
    for dependent in (False,) if why else (True, False):
        kernels = make(dependent)
        try:
            try_out(kernels)
        except Exception as error:  # a compiler's, a driver's or a wrong result: whatever it is, there is another way
            why += f", {'dependent' if dependent else 'plain'} launch failed ({type(error).__name__}: {error})"[:300]
            continue
        return Chosen(kernels, f"fused products by Triton{', dependent launch' if dependent else ''}{why}")
    return Chosen(None, f"products by the library{why}")


def _try_out(kernels: FewRows, device: torch.device, dtype: torch.dtype) -> None:
    """One small chain. Raises if it does not run, or is wrong."""
    generator = torch.Generator().manual_seed(0)
    gain, shift = (torch.randn(256, generator=generator).to(device, dtype) for _ in range(2))
    norm = LayerNorm(gain, shift, 1e-5)
    weight = (torch.randn(256, 256, generator=generator) / 16).to(device, dtype)
    first, second = layer(plain(weight), norm=norm), layer(plain(weight.flip(0).contiguous()))
    x = torch.randn(1, 256, generator=generator).to(device, dtype)
    torch.cuda.synchronize(device)
    for _ in range(2):
        found = kernels.linear(kernels.linear(x, first), second, residual=x)
    expected = fused_linear(fused_linear(x, first), second, residual=x)
    error = float((found - expected).to(torch.float32).norm() / expected.to(torch.float32).norm())
    if not error < 2e-2:
        raise ArithmeticError(f"error norm {error}")
