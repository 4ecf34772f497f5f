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

from ridgeline.core.types import MAX_LOGIT_BIAS, MAX_STOP_IDS, Ints, Join, Plan
from ridgeline.device.base import Device
from ridgeline.ops.philox import seed_bits, uniforms
from ridgeline.runner.asks import Asks


@dataclass(frozen=True, slots=True)
class Sizes:
    """slots: requests that run at once. max_len: longest sequence. Blocks of the KV cache: how many, how long.
    step_tokens: tokens of a step at most."""

    slots: int
    max_len: int
    num_blocks: int
    block_size: int
    step_tokens: int = 2048

    @property
    def table_width(self) -> int:
        return -(-self.max_len // self.block_size)


class SlotTables:
    """Tensors on the device, a row a slot; `asks` is the host's side of them."""

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
        self.bias_ids = table(MAX_LOGIT_BIAS, 0, torch.int32)
        self.bias_values = table(MAX_LOGIT_BIAS, 0, torch.float32)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=where)
        self.stopped = torch.ones(rows, dtype=torch.bool, device=where)
        self._facts = table(4, 0, torch.int64)
        self.prompts, self.limits, self.top_k, self.min_tokens = self._facts.unbind(-1)
        self._odds = table(6, 0, torch.float64)
        (
            self.temperature, self.top_p, self.min_p, self.repetition, self.presence, self.frequency,
        ) = self._odds.unbind(-1)  # fmt: skip
        self.asks = Asks(rows)

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

    def _join(self, joins: tuple[Join, ...]) -> None:
        slots = np.array([join.slot for join in joins], np.int64)
        ids = [np.concatenate((join.prompt_ids, join.output_ids)) for join in joins]
        lengths = np.array([len(row) for row in ids], np.int64)
        facts, odds = np.array(list(map(_facts, joins)), np.int64), np.array(list(map(_odds, joins)), np.float64)
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
        self._facts[at], self._odds[at] = facts_, odds_.view(torch.float64)
        self.stop_ids[at] = stops_.to(torch.int32)
        for join in joins:
            self._bias(join)
            self.asks.join(join)
        self._draw(joins, lengths)

    def _bias(self, join: Join) -> None:
        """Before asks know of the join: whoever sat there may have left biases."""
        if self.asks.biases[join.slot] and not join.sampling.logit_bias:
            self.bias_values[join.slot] = 0
        if join.sampling.logit_bias:
            ids, values = (np.array(column) for column in zip(*join.sampling.logit_bias, strict=True))
            at, addends = self.device.upload([ids.astype(np.int64), values.astype(np.float64).view(np.int64)])
            self.bias_ids[join.slot, : len(ids)] = at.to(torch.int32)
            self.bias_values[join.slot] = 0
            self.bias_values[join.slot, : len(ids)] = addends.view(torch.float64).to(torch.float32)

    def _draw(self, joins: tuple[Join, ...], lengths: Ints) -> None:
        """All uniforms that the requests may need, at once: ten rounds of small operations a step would cost more."""
        wants = [
            (join.slot, seed_bits(join.sampling.seed), start, join.limit - start)
            for join, start in zip(joins, lengths.tolist(), strict=True)
            if join.sampling.temperature > 0
        ]
        if not wants:
            return
        slots, seeds, starts, counts = np.array(wants, np.int64).T
        total = int(counts.sum())
        facts, repeats = self.device.upload([np.stack((slots, seeds, starts - counts.cumsum() + counts)), counts])
        # The output's size is told because a device would have to be asked for it.
        slot, seed, offset = torch.repeat_interleave(facts, repeats, dim=1, output_size=total).unbind()
        positions = torch.arange(total, device=self.device.torch_device) + offset
        self.uniforms[slot, positions] = uniforms(seed, positions)


def _facts(join: Join) -> tuple[int, ...]:
    return len(join.prompt_ids), join.limit, join.sampling.top_k, join.sampling.min_tokens


def _odds(join: Join) -> tuple[float, ...]:
    asked = join.sampling
    return (
        asked.temperature, asked.top_p, asked.min_p, asked.repetition_penalty, asked.presence_penalty,
        asked.frequency_penalty,
    )  # fmt: skip


def _places(slots: Ints, rows: Sequence[NDArray[np.generic]]) -> Ints:
    """[2, values]: slot and index in the slot's row, for the values of all rows end to end."""
    sizes = np.array([len(row) for row in rows], np.int64)
    ends = sizes.cumsum()
    return np.stack((np.repeat(slots, sizes), np.arange(sizes.sum()) - np.repeat(ends - sizes, sizes)))
