"""Which bodies the three operations over pages have on a device. Loads Triton's only where they can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ridgeline.device.base import Device
from ridgeline.ops import paged_decode, paged_prefill, pages
from ridgeline.ops.lazy import is_triton
from ridgeline.ops.paged_decode import Singles
from ridgeline.ops.paged_prefill import Spans
from ridgeline.ops.pages import Pages


class DecodeOp(Protocol):
    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, pages: Pages, rows: Singles, scale: float,
        window: int | None = None,
    ) -> None:  # fmt: skip
        ...


class PrefillOp(Protocol):
    def __call__(
        self, q: Tensor, out: Tensor, pages: Pages, spans: Spans, scale: float, window: int | None = None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class PagedOps:
    """As pages.append, paged_decode.decode and paged_prefill.prefill define them. tile: queries that a tile of prefill
    has at most."""

    append: Callable[[Pages, Tensor, Tensor, Tensor], None]
    decode: DecodeOp
    prefill: PrefillOp
    tile: int


REFERENCE = PagedOps(pages.append, paged_decode.decode, paged_prefill.prefill, tile=64)


def paged_ops(device: Device) -> PagedOps:
    """The fastest known for this device."""
    return triton_ops() if is_triton(device) else REFERENCE


def triton_ops(decode_whole_from: int | None = 64) -> PagedOps:
    """Kernels, on a GPU or in Triton's interpreter. decode_whole_from: as Decode's. Raises ImportError where there is
    no Triton."""
    from ridgeline.ops import pages_triton
    from ridgeline.ops.paged_decode_triton import Decode
    from ridgeline.ops.paged_prefill_triton import Prefill

    prefill = Prefill()
    return PagedOps(pages_triton.append, Decode(whole_from=decode_whole_from), prefill, tile=prefill.queries)
