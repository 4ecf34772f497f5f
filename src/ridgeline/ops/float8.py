"""y = x W^T + b with both operands in 8-bit floats, for many rows on a GPU: who computes it, and what x becomes first.

A row of x has a scale of its own, found as it comes (dynamic), and a row of W has one. The values of a word of W lie
128 columns apart (ops/words.py); a sum does not mind in which order its terms come, so x is written in that order and
W stays as the kernels for few rows read it. Knows weights as Words of 8-bit floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.ops.activation import ACTIVATIONS
from ridgeline.ops.gemv import FIRST_FLOAT8, LayerNorm
from ridgeline.ops.trials import once, surroundings
from ridgeline.ops.words import BLOCK, FLOAT8, Words, float8

MOST = 448.0
"""The largest number in e4m3."""
ALIGNED = 16
"""The library takes matrices whose sides are multiples of this."""

Quantise = Callable[[Tensor, LayerNorm | None], tuple[Tensor, Tensor]]
"""(x [rows, d_in], norm or None) -> values [rows, padded d_in] e4m3 in the order of Words' bytes, scales [rows, 1]
float32."""
Product = Callable[[Tensor, Tensor, Words, Tensor | None], Tensor]
"""(values, scales, weight, bias [d_out] or None) -> [rows, d_out] in bfloat16."""


def quantised(x: Tensor, norm: LayerNorm | None) -> tuple[Tensor, Tensor]:
    """The definition of Quantise."""
    wide = x.to(torch.float32)
    if norm is not None:
        weight, bias = norm.weight.to(torch.float32), norm.bias.to(torch.float32)
        wide = functional.layer_norm(wide, (x.shape[1],), weight, bias, norm.eps)
    scales = wide.abs().amax(1, keepdim=True) / MOST
    scaled = (wide * torch.where(scales > 0, 1.0 / scales, 0.0)).clamp(-MOST, MOST)
    blocks = functional.pad(scaled, (0, -x.shape[1] % BLOCK)).view(x.shape[0], -1, 2, BLOCK // 2)
    return blocks.transpose(2, 3).reshape(x.shape[0], -1).to(torch.float8_e4m3fn), scales


def columns_of(weight: Words) -> Tensor:
    """The matrix as the library takes it, [padded d_in, d_out], columns side by side; a view."""
    assert weight.kind == FLOAT8
    return weight.words.view(torch.float8_e4m3fn).t()


def fits(weight: Words) -> bool:
    return weight.kind == FLOAT8 and weight.d_out % ALIGNED == 0


def by_row(values: Tensor, scales: Tensor, weight: Words, bias: Tensor | None) -> Tensor:
    """The library multiplies by the scales of both."""
    assert weight.scales is not None
    return torch._scaled_mm(
        values, columns_of(weight), scale_a=scales, scale_b=weight.scales.t(), bias=bias, out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )  # fmt: skip


def by_tensor(values: Tensor, scales: Tensor, weight: Words, bias: Tensor | None) -> Tensor:
    """For GPUs whose library knows only one scale a matrix (capability 12.0): it multiplies by 1, and the scales come
    after it."""
    assert weight.scales is not None
    one = torch.ones((), device=values.device)
    y = torch._scaled_mm(
        values, columns_of(weight), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    y = y.to(torch.float32).mul_(scales).mul_(weight.scales.t())
    return (y if bias is None else y.add_(bias)).to(torch.bfloat16)


PRODUCTS: Mapping[str, Product] = {"a scale a row": by_row, "a scale a matrix": by_tensor}
"""In the order of preference."""


class Scaled(Protocol):
    @property
    def name(self) -> str: ...

    def linear(
        self, x: Tensor, norm: LayerNorm | None, weight: Words, bias: Tensor | None, activation: str | None,
        residual: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """x: [rows, d_in] bfloat16. Returns residual + activation(W norm(x) + b), [rows, d_out]."""
        ...


@dataclass(frozen=True, slots=True)
class Dynamic:
    """x is quantised as it comes."""

    name: str
    quantise: Quantise
    product: Product

    def linear(
        self, x: Tensor, norm: LayerNorm | None, weight: Words, bias: Tensor | None, activation: str | None,
        residual: Tensor | None,
    ) -> Tensor:  # fmt: skip
        y = self.product(*self.quantise(x, norm), weight, bias)
        if activation is not None:
            y = ACTIVATIONS[activation](y)
        return y if residual is None else y.add_(residual)


@dataclass(frozen=True, slots=True)
class ChosenScaled:
    """scaled: None: none works here. note: which, and why not others."""

    scaled: Scaled | None
    note: str


def scaled_products(device: torch.device, dtype: torch.dtype, cache: Path | None = None) -> ChosenScaled:
    """What works here, tried on the device itself. cache: as few_rows has it."""
    if device.type != "cuda":
        return ChosenScaled(None, "products of 8-bit floats are for NVIDIA GPUs")
    if find_spec("triton") is None:
        return ChosenScaled(None, "products of 8-bit floats need Triton, which is not installed")
    from ridgeline.ops import float8_triton

    capability = torch.cuda.get_device_capability(device)
    about = ("8-bit floats", *surroundings(device, float8_triton.__file__, __file__))

    def try_out(scaled: Scaled) -> None:
        _try_out(scaled, device)

    tried = once(try_out, about, cache, lambda scaled: scaled.name)
    return choose(capability, dtype, float8_triton.quantised, tried)


def choose(
    capability: tuple[int, int], dtype: torch.dtype, quantise: Quantise, try_out: Callable[[Scaled], None]
) -> ChosenScaled:
    """try_out: raises for products that do not work."""
    if capability < FIRST_FLOAT8:
        name = f"compute capability {capability[0]}.{capability[1]}"
        return ChosenScaled(None, f"products of 8-bit floats need compute capability 8.9; this is {name}")
    if dtype is not torch.bfloat16:
        return ChosenScaled(None, "products of 8-bit floats come out in bfloat16; --dtype is another")
    why = ""
    for name, product in PRODUCTS.items():
        scaled = Dynamic(name, quantise, product)
        try:
            try_out(scaled)
        except Exception as error:  # the library's, the compiler's or a wrong result: there is another way
            why += f"; {name} failed ({type(error).__name__}: {error})"[:200]
            continue
        return ChosenScaled(scaled, f"products of 8-bit floats by the library, {name}{why}")
    return ChosenScaled(None, f"many rows widen 8-bit floats{why}")


def _try_out(scaled: Scaled, device: torch.device) -> None:
    """A small product with all around it. Raises if it does not run, or is wrong."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(device, torch.bfloat16)

    weight, bias, x, residual = float8(normal(64, 320) / 18), normal(64), normal(24, 320), normal(24, 64)
    norm = LayerNorm(normal(320), normal(320), 1e-5)
    found = scaled.linear(x, norm, weight, bias, "gelu_new", residual)
    expected = defined(x, norm, weight, bias, "gelu_new", residual)
    error = float((found - expected).to(torch.float32).norm() / expected.to(torch.float32).norm())
    if not error < 3e-2:
        raise ArithmeticError(f"error norm {error}")


def defined(
    x: Tensor, norm: LayerNorm | None, weight: Words, bias: Tensor | None, activation: str | None,
    residual: Tensor | None,
) -> Tensor:  # fmt: skip
    """The definition of Scaled.linear, in x's format; everything in between is float32."""
    values, scales = quantised(x, norm)
    columns = columns_of(weight).to(torch.float32)
    assert weight.scales is not None
    y = torch.mm(values.to(torch.float32), columns) * scales * weight.scales.t()
    if bias is not None:
        y += bias.to(torch.float32)
    if activation is not None:
        y = ACTIVATIONS[activation](y)
    return (y if residual is None else y + residual).to(x.dtype)
