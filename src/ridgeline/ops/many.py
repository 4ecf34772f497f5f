"""y = residual + activation(x W^T + b) for more rows than a handful, where W has fewer bits: who computes it on a GPU.

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

from ridgeline.ops import words
from ridgeline.ops.gemv import FIRST_TRITON, Layer, fused_linear
from ridgeline.ops.trials import once, surroundings
from ridgeline.ops.words import Words

FIRST_DEEP = (9, 0)
"""From here on a multiprocessor has 227 KB of shared memory, enough for tiles of 64 rows three stages deep."""
TILED_ROWS, TILED_ROWS_OLD = 128, 32
"""Rows up to which weights are widened in registers, a tile at a time. Above, the library multiplies a whole widened
matrix. A fixed number, because a choice by timing would make a result depend on the moment; scripts/check_gpu_quant.py
measures where the two ways meet."""


class ManyRows(Protocol):
    """most: rows up to which `linear` is the better way."""

    most: int

    def linear(
        self, x: Tensor, weight: Words, bias: Tensor | None, activation: str | None, residual: Tensor | None
    ) -> Tensor:
        """x: [rows, d_in]; bias: [d_out]. As `multiplied`."""
        ...

    def widened(self, weight: Words, dtype: torch.dtype) -> Tensor:
        """As `widened`."""
        ...


def multiplied(
    x: Tensor, weight: Words, bias: Tensor | None, activation: str | None, residual: Tensor | None
) -> Tensor:
    """The definition. Returns [rows, d_out] in x's format. Values of the matrix may be rounded to x's format first."""
    return fused_linear(x, Layer(weight, bias, None, activation), residual)


def widened(weight: Words, dtype: torch.dtype) -> Tensor:
    """The definition. The whole matrix in a format, [d_out, d_in]."""
    return weight.values().to(dtype)


@dataclass(frozen=True, slots=True)
class ChosenMany:
    """kernels: None: there are none for this device. note: which, and why not others."""

    kernels: ManyRows | None
    note: str


def many_rows(device: torch.device, dtype: torch.dtype, kind: str, cache: Path | None = None) -> ChosenMany:
    """kind: a name in words.QUANTISE. Those that work here, tried on the device itself. cache: as few_rows has it."""
    if device.type != "cuda":
        return ChosenMany(None, "tiles of packed weights are for NVIDIA GPUs")
    if find_spec("triton") is None:
        return ChosenMany(None, "tiles of packed weights need Triton, which is not installed")
    from ridgeline.ops import gemv_triton, many_triton

    capability = torch.cuda.get_device_capability(device)
    programs = torch.cuda.get_device_properties(device).multi_processor_count
    about = ("many rows", dtype, kind, *surroundings(device, many_triton.__file__, gemv_triton.__file__))

    def try_out(tiles: ManyRows) -> None:
        _try_out(tiles, device, dtype, kind)

    tried = once(try_out, about, cache, lambda tiles: f"{tiles.most} rows")
    return choose(capability, dtype, lambda deep, most: many_triton.Tiles(programs, deep, most), tried)


def choose(
    capability: tuple[int, int],
    dtype: torch.dtype,
    make: Callable[[bool, int], ManyRows],
    try_out: Callable[[ManyRows], None],
) -> ChosenMany:
    """make: (deep, most rows) -> kernels. try_out: raises for kernels that do not work."""
    name = f"compute capability {capability[0]}.{capability[1]}"
    if capability < FIRST_TRITON:
        return ChosenMany(None, f"tiles of packed weights need compute capability 7.5; this is {name}")
    if dtype is torch.float32:
        return ChosenMany(None, "tiles of packed weights are for 16-bit activations; float32 goes through the library")
    deep = capability >= FIRST_DEEP
    kernels = make(deep, TILED_ROWS if deep else TILED_ROWS_OLD)
    try:
        try_out(kernels)
    except Exception as error:  # a compiler's, a driver's or a wrong result: the library is left
        return ChosenMany(None, f"many rows widen all weights by the library ({type(error).__name__}: {error})"[:300])
    return ChosenMany(kernels, f"tiles of packed weights by Triton up to {kernels.most} rows")


def _try_out(kernels: ManyRows, device: torch.device, dtype: torch.dtype, kind: str) -> None:
    """The largest tile, and a whole matrix. Raises if they do not run, or are wrong."""
    generator = torch.Generator().manual_seed(0)
    weight = words.QUANTISE[kind]((torch.randn(192, 320, generator=generator) / 18).to(device, dtype))
    x = torch.randn(kernels.most, 320, generator=generator).to(device, dtype)
    pairs = (
        (kernels.linear(x, weight, None, None, None), multiplied(x, weight, None, None, None)),
        (kernels.widened(weight, dtype), widened(weight, dtype)),
    )
    for found, expected in pairs:
        error = float((found - expected).to(torch.float32).norm() / expected.to(torch.float32).norm())
        if not error < 2e-2:
            raise ArithmeticError(f"error norm {error}")
