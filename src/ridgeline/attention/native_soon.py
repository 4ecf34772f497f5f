"""Soon: native attention whose kernel is still being compiled. Plain torch attends meanwhile, over the kernel's cells.

The kernel takes over between two steps. What it computes differs by rounding, so this is for servers that promise
nothing about the last bits. Knows no request.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.attention.base import score_scale
from ridgeline.attention.batch import Batch
from ridgeline.attention.native import CellStore, Native, NativeMeta
from ridgeline.core.spec import ModelSpec
from ridgeline.device.base import Device
from ridgeline.device.jit import Building, CannotBuild

_LOOK_S = 0.01
"""So long an idle engine waits for the compiler before it looks for messages again."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A batch as it came. seen: of each row, [queries, context]: whether a query attends a position."""

    batch: Batch
    seen: tuple[Tensor, ...]


class Soon(Native):
    """building: the kernel. Formats with scales are not for it: how values are rounded to 8 bits is the kernel's."""

    note = "native attention is being compiled, once for this machine; plain torch attends meanwhile"

    def __init__(self, building: Building, group: int = 1) -> None:
        self._prepare(group)
        self._building: Building | None = building
        self.ready = False

    def between(self) -> None:
        """Before a step: take the kernel if it is there."""
        if self._building is not None and self._building.done:
            self._take(self._building)

    def idle(self) -> bool:
        """Nothing is to do: wait for the compiler a little. False: nothing is being compiled any more."""
        if self._building is None:
            return False
        self._building.wait(_LOOK_S)
        return True

    def _take(self, building: Building) -> None:
        self._building = None
        try:
            self._bind(building.library())
        except CannotBuild as error:
            logging.getLogger("ridgeline").warning("native attention stays plain torch: %s", error)
        else:
            self.ready = True

    def store(self, spec: ModelSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: Device) -> CellStore:
        self._plain_scales = [score_scale(spec, layer) for layer in range(spec.layers)]
        return super().store(spec, num_blocks, block_size, dtype, device)

    def plan(self, batch: Batch, into: NativeMeta | None = None) -> NativeMeta | Plain:  # type: ignore[override]
        if self.ready:
            return super().plan(batch, into)
        seen = []
        for row, context in enumerate(batch.contexts.tolist()):
            first, end = batch.query_starts[row : row + 2].tolist()
            seen.append(torch.arange(max(1, context)) <= batch.positions[first:end, None])
        return Plain(batch, tuple(seen))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, meta: NativeMeta | Plain) -> Tensor:
        if isinstance(meta, NativeMeta):
            return super().__call__(layer, q, k, v, meta)
        batch, out = meta.batch, torch.empty_like(q)
        self._store.write(layer, batch.writes, k, v)
        for row, seen in enumerate(meta.seen):
            first, end = batch.query_starts[row : row + 2].tolist()
            blocks = batch.block_tables[row, : -(-seen.shape[1] // self._store.block_size)].tolist()
            keys, values = (
                x[: seen.shape[1]].to(torch.float32).transpose(0, 1).repeat_interleave(self._group, 0)
                for x in self._store.read(layer, blocks)
            )  # [heads, context, head_dim]
            asked = q[first:end].to(torch.float32).transpose(0, 1)
            found = functional.scaled_dot_product_attention(
                asked, keys, values, attn_mask=seen, scale=self._plain_scales[layer]
            )
            out[first:end] = found.transpose(0, 1)
        return out
