"""Turns: how a step that decodes one token a seat begins and ends, from the slot tables alone. Knows no model.

Who computes it: plain torch, which is the definition, or on a GPU a kernel for each end instead of some forty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ridgeline.device.base import Device
from ridgeline.ops.gemv import few_rows
from ridgeline.ops.lazy import is_triton


class Tables(Protocol):
    """What is read and written of the slot tables, a row a slot. tokens: [slots, max_len] int32. blocks: [slots, width]
    int32. stop_ids: [slots, n] int32, -1 where there is none. lengths, limits: [slots] int64. stopped: [slots] bool."""

    tokens: Tensor
    blocks: Tensor
    stop_ids: Tensor
    lengths: Tensor
    limits: Tensor
    stopped: Tensor

    def settle(self, slots: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Append a token to each of these slots unless it has ended. Returns (appended, is a stop id), [rows]."""
        ...


@dataclass(frozen=True, slots=True)
class Begun:
    """What every seat computes: its last token and where that stands. tokens: [seats] int32; positions, contexts:
    [seats] int64, contexts one more; block_tables: [seats, width] int32."""

    tokens: Tensor
    positions: Tensor
    contexts: Tensor
    block_tables: Tensor


class Turns(Protocol):
    """Between a begin and its end nobody else writes the tables."""

    def begin(self, slots: Tensor) -> Begun:
        """slots: [seats] int64. A slot without a token is at position 0."""
        ...

    def end(self, slots: Tensor, chosen: Tensor, ring: Tensor, turn: Tensor) -> None:
        """Settle `chosen` [seats] int64, write (token, appended, is a stop id) to place `turn` [1] int64 of `ring`
        [places, 3, seats] int32, and move `turn` on to the next place."""
        ...


class PlainTurns:
    """The definition."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def begin(self, slots: Tensor) -> Begun:
        tables = self._tables
        positions = (tables.lengths[slots] - 1).clamp(min=0)
        return Begun(tables.tokens[slots, positions], positions, positions + 1, tables.blocks[slots])

    def end(self, slots: Tensor, chosen: Tensor, ring: Tensor, turn: Tensor) -> None:
        appended, hit = self._tables.settle(slots, chosen)
        ring.index_copy_(0, turn, torch.stack((chosen, appended, hit)).to(torch.int32)[None])
        turn.add_(1).remainder_(ring.shape[0])


def turns_of(tables: Tables, device: Device) -> Turns:
    """The fastest for this device: kernels where those for few rows work."""
    few = few_rows(device.torch_device, device.compute).kernels if is_triton(device) else None
    if few is None:
        return PlainTurns(tables)
    from ridgeline.ops.turns_triton import KernelTurns

    return KernelTurns(tables, few.dependent)
