"""Tiles: rows in portions of one size, so that what a row gives does not depend on how many rows there are.

A library chooses its kernel, its threads and the order of its sums by a product's shape. A product that always has the
same shape is always computed the same way, and what is left to ask is whether all rows of it are treated alike: `alike`
tries that out. (The idea is that of batch-invariant kernels: He and others, "Defeating Nondeterminism in LLM
Inference", 2025.) Knows no weight.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ridgeline.device.base import Device
from ridgeline.ops.linear import LinearKernel

Product = Callable[[Tensor], Tensor]
"""x [rows, d_in] -> [rows, d_out]."""

CPU_ROWS, GPU_ROWS = 16, 64


def tile_rows(device: Device) -> int:
    """A CPU computes all 16 rows of a tile for one that is wanted, and a GPU reads the weights once for 64."""
    return CPU_ROWS if device.torch_device.type == "cpu" else GPU_ROWS


class Tiles:
    """Products of `rows` rows each; what the last tile lacks is zeros.

    Every tile is copied to one place in memory first: a library may take another way for rows that lie elsewhere.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._places: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def __call__(self, product: Product, x: Tensor) -> Tensor:
        """x: [tokens, d_in]. Returns [tokens, d_out], contiguous."""
        tokens = x.shape[0]
        if tokens <= self.rows:
            return product(self._filled(x))[:tokens]
        parts = [product(self._filled(part))[: part.shape[0]] for part in torch.split(x, self.rows)]
        return torch.cat(parts)

    def _filled(self, x: Tensor) -> Tensor:
        key = x.shape[1], x.dtype, x.device
        place = self._places.get(key)
        if place is None:
            # A tensor that was made in inference mode cannot be written outside of it, and this one outlives its call.
            with torch.inference_mode(mode=False):
                place = self._places[key] = torch.zeros((self.rows, x.shape[1]), dtype=x.dtype, device=x.device)
        place[: x.shape[0]] = x
        place[x.shape[0] :] = 0
        return place


def alike(product: Product, rows: int, row: Tensor) -> bool:
    """Whether the product gives all rows of a tile the same bits. row: [d_in], any values; tried with as many of it."""
    made = product(row.expand(rows, -1).contiguous())
    return torch.equal(made, made[:1].expand_as(made))


class InTiles:
    """A linear kernel, tile by tile."""

    row_invariant = True

    def __init__(self, kernel: LinearKernel, rows: int) -> None:
        self._kernel, self._tiles = kernel, Tiles(rows)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self._tiles(lambda tile: self._kernel(tile, weight, bias), x)
