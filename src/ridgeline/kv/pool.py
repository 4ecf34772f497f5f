"""Block pool: which blocks are free, and how many references the others have. Knows no slot and no token."""

from __future__ import annotations

import numpy as np

from ridgeline.core.types import Ints


class BlockPool:
    """A stack of free block ids and a count of references per block.

    A block without a reference is either free or idle: idle ones belong to the prefix index until it gives them up.
    Every array passed in names each block once.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.refs: Ints = np.zeros(num_blocks, np.int64)
        self._stack: Ints = np.arange(num_blocks - 1, -1, -1, dtype=np.int64)
        self._top = num_blocks

    @property
    def free(self) -> int:
        return self._top

    def take(self, count: int) -> Ints:
        """Hand out `count` free blocks with one reference each."""
        assert count <= self._top, "more blocks than are free"
        self._top -= count
        blocks = self._stack[self._top : self._top + count].copy()
        self.refs[blocks] = 1
        return blocks

    def share(self, blocks: Ints) -> None:
        """One more reference to each."""
        self.refs[blocks] += 1

    def drop(self, blocks: Ints) -> Ints:
        """One reference less to each; returns those that have none left."""
        self.refs[blocks] -= 1
        unused: Ints = blocks[self.refs[blocks] == 0]
        return unused

    def give(self, blocks: Ints) -> None:
        """Blocks without a reference become free."""
        self._stack[self._top : self._top + len(blocks)] = blocks
        self._top += len(blocks)

    def check(self, idle: int) -> None:
        """idle: blocks that the prefix index keeps though nobody refers to them."""
        free = self._stack[: self._top]
        assert len(np.unique(free)) == self._top, "a block is free twice"
        assert not self.refs[free].any(), "a free block has a reference"
        assert self.refs.min(initial=0) >= 0, "a reference was dropped twice"
        assert self._top + idle == np.count_nonzero(self.refs == 0), "a block is neither free, idle nor referred to"
