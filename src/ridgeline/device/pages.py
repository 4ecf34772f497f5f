"""Pages: memory of the host in large pages, for what is read from end to end at every step. Knows bytes and no matrix.

A matrix read once is read through a new page every 4 KiB, and the hardware's prefetching ends at each: with pages of
2 MiB two cores read weights at 29 GB/s where they read them at 22 (768 x 2304 in 8 bits from memory, 2 cores of Emerald
Rapids).
"""

from __future__ import annotations

import contextlib
import mmap

import torch
from torch import Tensor

_REGION = 32 << 20
_LINE = 64


class LargePages:
    """Regions that are filled one after the other. What nobody wrote to occupies nothing."""

    def __init__(self) -> None:
        self._region, self._used = torch.empty(0, dtype=torch.uint8), 0

    def place(self, values: Tensor) -> Tensor:
        """A copy of these bytes that begins with a cache line."""
        assert values.dtype is torch.uint8, values.dtype
        size = values.numel()
        if self._used + size > self._region.numel():
            self._region, self._used = zeros(max(size, _REGION)), 0
        placed = self._region[self._used : self._used + size].view(values.shape).copy_(values)
        self._used += -(-size // _LINE) * _LINE
        return placed


def zeros(size: int) -> Tensor:
    """So many bytes, at the beginning of a page. What nobody touches occupies nothing."""
    memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)  # holds the map as long as a view of it lives
