"""Paged attention in which every query is a row of its own. Knows what paged.py knows.

The kernel that serves decode steps serves prompts too: each of their tokens attends the pages as if it were decoded,
so what it gets is the same in every chunk. A prompt's keys are then read once a query instead of once a tile of them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ridgeline.attention.base import CannotAttend
from ridgeline.attention.batch import Batch, Mixed
from ridgeline.attention.paged import Paged, PagedMeta
from ridgeline.core.spec import ModelSpec
from ridgeline.device.base import Device
from ridgeline.ops.paged import triton_ops
from ridgeline.ops.paged_decode import Singles
from ridgeline.ops.pages import bytes_per_token


class PagedRows(Paged):
    """Pages on a GPU, a prompt's queries computed like those of decode steps: bitwise the same in every batch."""

    row_invariant = True

    @staticmethod
    def open(spec: ModelSpec, dtype: torch.dtype, device: Device, cache: Path | None) -> PagedRows:  # noqa: ARG004
        if device.torch_device.type != "cuda" or find_spec("triton") is None:
            raise CannotAttend("attention over pages by rows needs a GPU and Triton")
        return PagedRows(triton_ops(decode_whole_from=None))

    def block_bytes(self, spec: ModelSpec, block_size: int, dtype: torch.dtype) -> int:
        return spec.layers * block_size * bytes_per_token(spec.heads, spec.head_dim, dtype)

    def plan(self, batch: Batch, into: PagedMeta | None = None) -> PagedMeta:
        assert into is None, "a step that is captured is planned by plan_steady"
        counts = np.diff(batch.query_starts)
        (owners,) = self._upload([np.repeat(np.arange(len(counts)), counts)])
        singles = Singles(batch.block_tables[owners], batch.positions + 1)
        # Before any query looks, all keys must be there; decode writes its own once more, with the same bits.
        return PagedMeta(singles, None, None if batch.max_query == 1 else batch.writes)

    def plan_mixed(self, given: Mixed) -> PagedMeta:
        pages = self._store.layers[0]
        scratch = (pages.values.shape[0] - 1) * pages.block_size
        contexts = torch.where(given.writes < scratch, given.positions + 1, 0)  # nobody's positions write to scratch
        return PagedMeta(Singles(given.block_tables[given.rows], contexts), None, given.writes)
