"""A small prefix index, so that the tests can drive references, idle blocks and eviction through the seam."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from ridgeline.core.types import Ints, Tokens


class TreeIndex:
    """The key is (node of the parent, tokens of the block), so a hit is exact."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, bytes], tuple[int, int]] = {}  # -> node, block
        self._keys: dict[int, tuple[int, bytes]] = {}  # block -> key
        self._idle: OrderedDict[int, None] = OrderedDict()  # the longest idle first
        self._last = 0
        self.hits = 0

    @property
    def idle(self) -> int:
        return len(self._idle)

    def match(self, ids: Tokens, block_size: int) -> tuple[Ints, int]:
        found: list[int] = []
        node = 0
        for i in range((len(ids) - 1) // block_size):
            hit = self._nodes.get((node, ids[i * block_size : (i + 1) * block_size].tobytes()))
            if hit is None:
                break
            node, block = hit
            self._idle.pop(block, None)
            found.append(block)
        self.hits += len(found)
        return np.array(found, np.int64), node

    def publish(self, node: int, ids: Tokens, blocks: Ints) -> int:
        size = len(ids) // len(blocks)
        assert len(ids) == size * len(blocks), "only whole blocks"
        for i, block in enumerate(blocks.tolist()):
            key = (node, ids[i * size : (i + 1) * size].tobytes())
            if key not in self._nodes:
                self._last += 1
                self._nodes[key], self._keys[block] = (self._last, block), key
            node = self._nodes[key][0]
        return node

    def release(self, blocks: Ints) -> Ints:
        known = [block in self._keys for block in blocks.tolist()]
        for block in reversed(blocks[known].tolist()):  # tails become idle first, so they are evicted first
            self._idle[block] = None
        return blocks[~np.array(known, np.bool_)]

    def evict(self, count: int) -> Ints:
        blocks = [self._idle.popitem(last=False)[0] for _ in range(count)]
        for block in blocks:
            del self._nodes[self._keys.pop(block)]
        return np.array(blocks, np.int64)
