"""Calls: what layers in native code share: a library made of their source, and rows that go in and come out. Knows no
format of weights.

A layer is y = residual + activation(x W^T + b).
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.device import jit
from ridgeline.ops.activation import ACTIVATIONS

FOLDER = Path(__file__).with_name("native")
NUMBERS: dict[str | None, int] = {None: 0, "gelu_new": 1, "gelu": 2, "relu": 3}
"""Activations as native code knows them."""


def library(source: Path, cache: Path | None) -> ctypes.CDLL:
    """cache: where the library is kept; None: it is made for this process alone. Raises CannotBuild."""
    return jit.load(jit.source_of(source), cache, jit.Compiler.find(language=jit.CPP))


def defined(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, residual: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The definition, computed in float32, which x and weight are in already. Returns [rows, d_out] in dtype."""
    y = functional.linear(x, weight, None if bias is None else bias.to(torch.float32))
    if activation is not None:
        y = ACTIVATIONS[activation](y)
    return (y if residual is None else y + residual).to(dtype)


def checked(
    x: Tensor, residual: Tensor | None, shape: tuple[int, int], dtype: torch.dtype
) -> tuple[Tensor, int | None]:
    """shape: [d_out, d_in]. The rows to be written, [rows, d_out], and where those are that are added.

    Native code sees only addresses, so anything else than what it takes ends here.
    """
    d_out, d_in = shape
    assert (x.dtype, x.shape[1], x.is_contiguous()) == (dtype, d_in, True), (x.dtype, x.shape)
    y = torch.empty(x.shape[0], d_out, dtype=dtype)
    if residual is None:
        return y, None
    assert (residual.dtype, residual.shape, residual.is_contiguous()) == (dtype, y.shape, True)
    return y, residual.data_ptr()


def written(y: Tensor, failed: int) -> Tensor:
    """failed: what native code returned."""
    if failed:
        raise MemoryError(f"no memory for the activations of {len(y)} rows")
    return y


def in_longs(ids: Tensor) -> Tensor:
    """As native code takes them."""
    return ids if ids.dtype is torch.int64 and ids.is_contiguous() else ids.to(torch.int64).contiguous()
