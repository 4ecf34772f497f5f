"""Batch: one launch as tensors. Knows tokens, positions and cache blocks; knows no slot and no request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ridgeline.core.types import Ints


class Positions(Protocol):
    """What a model sees of a batch: N tokens and where they stand."""

    @property
    def tokens(self) -> Tensor: ...

    @property
    def positions(self) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Mixed:
    """A batch of fixed shapes, all of it on the device: `rows` rows lie end to end in N token positions, and what of
    both is nobody's differs from step to step.

    tokens, positions, writes: [N], as in Batch. rows: [N] int64, whose each is; those of nobody are any row's.
    block_tables: [rows, width] int32. singles: [rows] int64, what a row with one query attends; 0 for all other rows.
    places: [rows] int64, where a row's last query is in N. facts: [rows, 4], tiles: [tiles, 2], as in
    ops.paged_prefill.Spans; a row with one query has no facts.
    """

    tokens: Tensor
    positions: Tensor
    writes: Tensor
    rows: Tensor
    block_tables: Tensor
    singles: Tensor
    places: Tensor
    facts: Tensor
    tiles: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """What the model, the attention and the sampler see of a plan. Rows lie end to end in the N token positions.

    tokens: [N] int32. positions: [N] int64, in their sequence; a token attends every cached position up to its own.
    writes: [N] int64, where keys and values go: block * block_size + offset, or the scratch block for padding.
    block_tables: [rows, blocks of the longest context] int32; what lies beyond a row's context is any valid block.
    wanted: [W] int64, the token positions whose logits are wanted.
    On the host: query_starts [rows + 1], where a row begins in N; starts [rows], its first position in its sequence;
    contexts [rows], how many positions it attends at most, those of this launch included. A padded row has more queries
    than contexts - starts. padding: how many of the N are of no use.
    """

    tokens: Tensor
    positions: Tensor
    writes: Tensor
    block_tables: Tensor
    wanted: Tensor
    query_starts: Ints
    starts: Ints
    contexts: Ints
    max_query: int
    max_context: int
    padding: int
