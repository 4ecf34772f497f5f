"""Slot tables: what the device knows of each running request. Written by plans and by sampled tokens; knows no queue.

A slot more than can be seated stands for an empty seat: one token, and all its blocks are the scratch block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ridgeline.core.types import MAX_STOP_IDS, Ints, Join, Plan
from ridgeline.device.base import Device
from ridgeline.ops.philox import uniforms


@dataclass(frozen=True, slots=True)
class Sizes:
    """slots: requests that run at once. max_len: longest sequence. Blocks of the KV cache: how many, how long."""

    slots: int
    max_len: int
    num_blocks: int
    block_size: int

    @property
    def table_width(self) -> int:
        return -(-self.max_len // self.block_size)


class SlotTables:
    """Tensors on the device, a row a slot. `samples` and `forbids` are the host's: whom the sampler treats apart."""

    def __init__(self, sizes: Sizes, device: Device) -> None:
        self.sizes, self.device = sizes, device
        self.empty_slot, self.scratch_block = sizes.slots, sizes.num_blocks
        rows, where = sizes.slots + 1, device.torch_device

        def table(width: int, fill: int, dtype: torch.dtype) -> Tensor:
            return torch.full((rows, width), fill, dtype=dtype, device=where)

        self.tokens = table(sizes.max_len, 0, torch.int32)
        self.blocks = table(sizes.table_width, self.scratch_block, torch.int32)
        self.stop_ids = table(MAX_STOP_IDS, -1, torch.int32)
        self.uniforms = table(sizes.max_len, 0, torch.float64)
        self.lengths, self.prompts, self.limits, self.top_k, self.min_tokens = (
            torch.zeros(rows, dtype=torch.int64, device=where) for _ in range(5)
        )
        self.temperature, self.top_p = (torch.zeros(rows, dtype=torch.float64, device=where) for _ in range(2))
        self.stopped = torch.ones(rows, dtype=torch.bool, device=where)
        self.samples: NDArray[np.bool_] = np.zeros(rows, np.bool_)
        self.forbids: NDArray[np.bool_] = np.zeros(rows, np.bool_)

    def apply(self, plan: Plan) -> None:
        """Leaves, joins and new blocks of a plan, in this order. What is uploaded is proportional to what changed."""
        if plan.leaves:
            self._leave(np.array(plan.leaves, np.int64))
        if plan.joins:
            self._join(plan.joins)
        if len(plan.new_blocks[0]):
            slots, index, blocks = self.device.upload(plan.new_blocks)
            self.blocks[slots, index] = blocks.to(torch.int32)

    def settle(self, slots: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Append a token to each of these slots unless it has ended (R3). Returns (appended, is a stop id), [rows]."""
        lengths = self.lengths[slots]
        appended = ~self.stopped[slots] & (lengths < self.limits[slots])
        at = lengths.clamp(max=self.sizes.max_len - 1)
        self.tokens[slots, at] = torch.where(appended, chosen.to(torch.int32), self.tokens[slots, at])
        hit = (self.stop_ids[slots] == chosen[:, None]).any(-1) & appended
        lengths = lengths + appended
        self.lengths[slots] = lengths
        self.stopped[slots] = self.stopped[slots] | hit | (lengths >= self.limits[slots])
        return appended, hit

    def _leave(self, slots: Ints) -> None:
        (at,) = self.device.upload([slots])
        self.blocks[at] = self.scratch_block
        self.stopped[at] = True
        self.samples[slots] = self.forbids[slots] = False

    def _join(self, joins: tuple[Join, ...]) -> None:
        slots = np.array([join.slot for join in joins], np.int64)
        ids = [np.concatenate((join.prompt_ids, join.output_ids)) for join in joins]
        lengths = np.array([len(row) for row in ids], np.int64)
        facts = np.array(
            [(len(j.prompt_ids), j.limit, j.sampling.top_k, j.sampling.min_tokens) for j in joins], np.int64
        )
        odds = np.array([(j.sampling.temperature, j.sampling.top_p) for j in joins], np.float64)
        stops = np.full((len(joins), MAX_STOP_IDS), -1, np.int64)
        for row, join in enumerate(joins):
            stops[row, : len(join.sampling.stop_ids)] = join.sampling.stop_ids
        held = [np.array(join.blocks, np.int64) for join in joins]
        at, token_at, tokens, block_at, blocks, length, facts_, odds_, stops_ = self.device.upload(
            [
                slots,
                _places(slots, ids),
                np.concatenate(ids).astype(np.int64),
                _places(slots, held),
                np.concatenate(held),
                lengths,
                facts,
                odds.view(np.int64),
                stops,
            ]
        )
        self.tokens[token_at[0], token_at[1]] = tokens.to(torch.int32)
        self.blocks[at] = self.scratch_block
        self.blocks[block_at[0], block_at[1]] = blocks.to(torch.int32)
        self.lengths[at], self.stopped[at] = length, False
        self.prompts[at], self.limits[at], self.top_k[at], self.min_tokens[at] = facts_.unbind(-1)
        self.temperature[at], self.top_p[at] = odds_.view(torch.float64).unbind(-1)
        self.stop_ids[at] = stops_.to(torch.int32)
        self.samples[slots] = odds[:, 0] > 0
        self.forbids[slots] = (facts[:, 3] > 0) & (stops[:, 0] >= 0)
        for join, start in zip(joins, lengths.tolist(), strict=True):
            self._draw(join, start)

    def _draw(self, join: Join, start: int) -> None:
        """All uniforms that the request may need, at once: ten rounds of small operations a step would cost more."""
        if join.sampling.temperature > 0:
            positions = torch.arange(start, join.limit, device=self.device.torch_device)
            self.uniforms[join.slot, start : join.limit] = uniforms(join.sampling.seed, positions)


def _places(slots: Ints, rows: Sequence[NDArray[np.generic]]) -> Ints:
    """[2, values]: slot and index in the slot's row, for the values of all rows end to end."""
    sizes = np.array([len(row) for row in rows], np.int64)
    ends = sizes.cumsum()
    return np.stack((np.repeat(slots, sizes), np.arange(sizes.sum()) - np.repeat(ends - sizes, sizes)))
