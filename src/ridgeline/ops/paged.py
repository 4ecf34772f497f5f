"""Which bodies the three operations over pages have on a device. Loads Triton's only where they can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ridgeline.device.base import Device
from ridgeline.ops import paged_decode, paged_prefill, pages
from ridgeline.ops.paged_decode import Singles
from ridgeline.ops.paged_prefill import Spans
from ridgeline.ops.pages import Pages


@dataclass(frozen=True, slots=True)
class PagedOps:
    """As pages.append, paged_decode.decode and paged_prefill.prefill define them. tile: queries that a tile of prefill
    has at most."""

    append: Callable[[Pages, Tensor, Tensor, Tensor], None]
    decode: Callable[[Tensor, Tensor, Tensor, Tensor, Pages, Singles, float, int | None], None]
    prefill: Callable[[Tensor, Tensor, Pages, Spans, float, int | None], None]
    tile: int


REFERENCE = PagedOps(pages.append, paged_decode.decode, paged_prefill.prefill, tile=64)


def paged_ops(_: Device) -> PagedOps:
    """The fastest known for this device."""
    return REFERENCE
