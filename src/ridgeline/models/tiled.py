"""Any scheme made row-invariant: its matrices see tiles of one size. Knows no format of weights and no kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ridgeline.device.base import Device
from ridgeline.models.linear import Embedding, Linear, LinearSpec, PlainNorms, Scheme
from ridgeline.ops.activation import invariant
from ridgeline.ops.tiles import Tiles, alike, tile_rows


class Tiled(PlainNorms):
    """What the inner scheme makes of a matrix gets `tile_rows` rows at a time, whatever the batch.

    Whether its product treats all places of a tile alike is tried out for every matrix. Where it does not, the matrix
    gets one row at a time, which cannot depend on others, and reads its weights once for each.
    """

    row_invariant = True

    def __init__(self, inner: Scheme, device: Device, rows: int | None = None) -> None:
        self._inner, self._device = inner, device
        self._tiles, self._single = Tiles(rows or tile_rows(device)), Tiles(1)
        self._random = torch.Generator().manual_seed(0)

    @property
    def notes(self) -> tuple[str, ...]:
        return self._inner.notes

    def linear(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> Linear:
        return self._tiled(spec, self._inner.linear(replace(spec, activation=None, norm=None), weight, bias))

    def embedding(self, weight: Tensor) -> Embedding:
        return self._inner.embedding(weight)

    def tied(self, spec: LinearSpec, weight: Tensor) -> tuple[Embedding, Linear]:
        embedding, product = self._inner.tied(replace(spec, activation=None, norm=None), weight)
        return embedding, self._tiled(spec, product)

    def _tiled(self, spec: LinearSpec, product: Linear) -> Linear:
        activation = None if spec.activation is None else invariant(spec.activation, self._device)
        return TiledLinear(product, self._tiles_for(product, spec.d_in), activation)

    def _tiles_for(self, product: Linear, d_in: int) -> Tiles:
        row = torch.randn(d_in, generator=self._random).to(self._device.torch_device, self._device.compute)
        with torch.inference_mode():
            return self._tiles if alike(product, self._tiles.rows, row) else self._single


class TiledLinear:
    """inner: without residual and activation, which are added here."""

    def __init__(self, inner: Linear, tiles: Tiles, activation: Callable[[Tensor], Tensor] | None) -> None:
        self._inner, self._tiles, self._activation = inner, tiles, activation

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = self._tiles(self._inner, x)
        if self._activation is not None:
            y = self._activation(y)
        return y if residual is None else y.add_(residual)
