"""The seam of attention: a backend owns its cache's layout and how a batch is cut. Knows no model's weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from ridgeline.attention.batch import Batch, Mixed
from ridgeline.core.spec import ModelSpec
from ridgeline.device.base import Device

Meta = TypeVar("Meta")


class CannotAttend(Exception):
    """This backend cannot serve this model here; the message is half a sentence that says why."""


class Store(Protocol):
    """A backend's KV cache."""

    def read(self, layer: int, block_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of these blocks, each [blocks * block_size, heads, head_dim]; for tests."""
        ...


class Attention(Protocol[Meta]):
    """plan once for a batch, then call once for a layer.

    row_invariant: whether what a query gets is bitwise the same whatever else is in the batch, and in whatever chunk of
    its prompt it comes.
    """

    row_invariant: bool
    prefers: int

    @staticmethod
    def open(spec: ModelSpec, dtype: torch.dtype, device: Device, cache: Path | None) -> Attention[Any]:
        """A backend for this model with a cache of this format. cache: a folder for what is compiled, None: keep
        nothing. Raises CannotAttend."""
        ...

    def allows(self, block_size: int) -> bool: ...

    def block_bytes(self, spec: ModelSpec, block_size: int, dtype: torch.dtype) -> int:
        """What a block occupies over all layers."""
        ...

    def scale_bits(self, dtype: torch.dtype) -> int:
        """Of a scale that a token and head has for its key, and another for its value; 0: there is none."""
        ...

    def store(self, spec: ModelSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: Device) -> Store:
        """Make the cache that every later call writes and reads. Block `num_blocks` takes what padding writes."""
        ...

    def plan(self, batch: Batch, into: Meta | None = None) -> Meta:
        """What all layers share. into: an earlier plan of the same shapes, whose tensors are to be written again.

        It comes before every launch, so it never waits for the device.
        """
        ...

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, meta: Meta) -> Tensor:
        """q, k, v: [tokens, heads, head_dim]. Stores k and v, and returns [tokens, heads, head_dim]."""
        ...


AnyAttention = Attention[Any]


@runtime_checkable
class SteadyAttention(Attention[Any], Protocol):
    """An attention that can plan on the device alone, so that the step it serves can be captured and replayed.

    reads_contexts: whether the calls then read what the contexts reach, not whole tables: otherwise a replay costs more
    than it saves.
    """

    reads_contexts: bool

    def plan_steady(self, block_tables: Tensor, contexts: Tensor) -> Any:
        """For a step in which every row has one query, in the order of the rows. block_tables: [rows, width] int32;
        contexts: [rows], the new token included; at least 1. Keys and values of the new token go to its place in the
        table. A row of nobody has the scratch block everywhere."""
        ...


@runtime_checkable
class MixedAttention(SteadyAttention, Protocol):
    """An attention that plans on the device alone also where some rows have many queries.

    tile: queries of a row that are computed together, which the host cuts rows into.
    """

    @property
    def tile(self) -> int: ...

    def plan_mixed(self, given: Mixed) -> Any:
        """The tensors stay where they are, and the calls read what they hold then. What a call returns for positions
        of nobody is not defined."""
        ...


def score_scale(spec: ModelSpec, layer: int) -> float:
    """What the dot products of queries and keys are multiplied by in this layer."""
    scale = 1.0 / math.sqrt(spec.head_dim) if spec.scale_attention else 1.0
    return scale / (layer + 1) if spec.scale_by_layer else scale
