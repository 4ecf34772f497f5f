"""Pages: a layer's keys and values in head-major blocks, and how new ones get there. Knows no query and no request.

In a page the tokens of one head lie side by side: 64 tokens of 64 values in 16 bits are 8 KiB in one piece, which a
kernel reads with the widest loads there are. Token-major pages put 128 bytes of every token beside those of all other
heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

KEYS, VALUES = 0, 1

SCALED: dict[torch.dtype, float] = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""Formats of 8 bits, and the largest value of each: a head's values of a token are divided so that they just fit."""

SMALLEST_SCALE = 2.0**-24
"""The smallest number above 0 of a scale's format, float16."""


@dataclass(frozen=True, slots=True)
class Pages:
    """values: [blocks, 2, kv_heads, block_size, head_dim], keys before values. scales: [blocks, kv_heads, block_size,
    2] float16, what a token's stored keys and values of 8 bits are to be multiplied by, side by side because the
    asynchronous copies of a GPU move 4 bytes at least; None: values are stored as they are. What nobody wrote may be
    anything: readers mask, they do not multiply by 0.
    """

    values: Tensor
    scales: Tensor | None

    @staticmethod
    def make(
        blocks: int, kv_heads: int, block_size: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> Pages:
        values = torch.empty((blocks, 2, kv_heads, block_size, head_dim), dtype=dtype, device=device)
        if dtype not in SCALED:
            return Pages(values, None)
        return Pages(values, torch.empty((blocks, kv_heads, block_size, 2), dtype=torch.float16, device=device))

    @property
    def block_size(self) -> int:
        return self.values.shape[3]

    def read(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """blocks: [...] ids. Keys and values in float32, each [..., kv_heads, block_size, head_dim]."""
        at = blocks.long()
        found = _plain(self.values)[at].view(self.values.dtype).to(torch.float32)
        if self.scales is not None:
            found = found * self.scales[at].to(torch.float32).movedim(-1, at.dim())[..., None]
        keys, values = found.unbind(at.dim())
        return keys, values


def bytes_per_token(kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
    """Of one layer: keys, values and their scales."""
    scale = 2 if dtype in SCALED else 0
    return 2 * kv_heads * (head_dim * dtype.itemsize + scale)


def tokens_bytes(pages: Pages, tokens: int) -> int:
    """Keys, values and scales of so many tokens."""
    return tokens * bytes_per_token(pages.values.shape[2], pages.values.shape[4], pages.values.dtype)


def append(pages: Pages, k: Tensor, v: Tensor, writes: Tensor) -> None:
    """The definition. k, v: [tokens, kv_heads, head_dim]; writes: [tokens], block * block_size + offset."""
    block, offset = writes // pages.block_size, writes % pages.block_size
    for part, given in ((KEYS, k), (VALUES, v)):
        stored, scales = stored_as(given, pages.values.dtype)
        _plain(pages.values)[:, part][block, :, offset] = _plain(stored)
        if pages.scales is not None and scales is not None:
            pages.scales[..., part][block, :, offset] = scales


def stored_as(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """x: [tokens, kv_heads, head_dim] in a cache's format, and its scales [tokens, kv_heads].

    What float16 cannot hold is cut to what it can. The scale is rounded first and values are divided by the rounded
    one, so a scale's own error costs nothing.
    """
    if dtype not in SCALED:
        most = torch.finfo(dtype).max
        return x.to(torch.float32).clamp(-most, most).to(dtype), None
    most, wide = SCALED[dtype], x.to(torch.float32)
    scales = (wide.abs().amax(-1) / most).clamp(SMALLEST_SCALE, torch.finfo(torch.float16).max).to(torch.float16)
    scaled = (wide / scales.to(torch.float32)[..., None]).clamp(-most, most)
    return (scaled.round() if dtype is torch.int8 else scaled).to(dtype), scales


def _plain(values: Tensor) -> Tensor:
    """The same memory in a format that can be indexed: torch does not index formats of 8-bit floats."""
    return values.view(torch.int8) if values.dtype.itemsize == 1 else values
