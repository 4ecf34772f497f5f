"""Layers of pages with sequences in them, for whoever compares the operations over pages. Knows no kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ridgeline.ops.paged_decode import Singles
from ridgeline.ops.paged_prefill import Spans
from ridgeline.ops.pages import Pages, append

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Layer:
    """dtype: of the cache; given: of queries, keys and values."""

    heads: int
    kv_heads: int
    head_dim: int
    block_size: int
    dtype: torch.dtype
    given: torch.dtype = torch.float32
    device: torch.device = CPU

    def randn(self, generator: torch.Generator, tokens: int, heads: int) -> Tensor:
        """[tokens, heads, head_dim] as a slice of something wider, as a model has them."""
        made = torch.randn(tokens, 3, heads, self.head_dim, generator=generator).to(self.given)
        return made.to(self.device)[:, 1]

    def pages(self, generator: torch.Generator, contexts: list[int]) -> tuple[Pages, Tensor]:
        """Pages that hold every sequence, and its table; what is beyond a sequence's end is no number, or wild."""
        size = self.block_size
        width = max(1, -(-max(contexts) // size))
        count = len(contexts) * width
        pages = Pages.make(count + 1, self.kv_heads, size, self.head_dim, self.dtype, self.device)
        if pages.scales is None:
            pages.values.fill_(float("nan"))
        else:
            pages.values.view(torch.int8).fill_(0x7F)
            pages.scales.fill_(float("nan"))
        tables = torch.randperm(count, generator=generator).view(-1, width).to(torch.int32)
        for row, context in enumerate(contexts):
            at = torch.arange(context)
            writes = tables[row].long()[at // size] * size + at % size
            k, v = (self.randn(generator, context, self.kv_heads) for _ in range(2))
            append(pages, k, v, writes.to(self.device))
            tables[row, -(-context // size) :] = count  # scratch
        return pages, tables.to(self.device)

    def singles(self, tables: Tensor, contexts: list[int]) -> Singles:
        return Singles(tables, torch.tensor(contexts, device=self.device))

    def spans(self, tables: Tensor, counts: list[int], contexts: list[int], tile: int) -> Spans:
        """Rows of so many queries each, the last of which is the context's last."""
        start, rows, tiles = 0, [], []
        for row, (count, context) in enumerate(zip(counts, contexts, strict=True)):
            rows.append((start, start + count, context - count, context))
            tiles += [(row, first) for first in range(0, count, tile)]
            start += count
        return Spans(torch.tensor(rows, device=self.device), torch.tensor(tiles, device=self.device), tables)


def copied(pages: Pages) -> Pages:
    return replace(pages, values=pages.values.clone(), scales=None if pages.scales is None else pages.scales.clone())


def same(one: Pages, other: Pages) -> bool:
    """Bit for bit."""
    parts = [(one.values, other.values)]
    if one.scales is not None and other.scales is not None:
        parts.append((one.scales, other.scales))
    return all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in parts)
