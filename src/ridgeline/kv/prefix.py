"""Prefix index: which computed blocks may serve another request. Knows tokens and block ids; counts no references."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import numpy as np

from ridgeline.core.types import NO_INTS, Ints, Tokens

Node = int | str
"""A sequence of whole blocks from the start of a prompt. The empty sequence is the prompt's salt, so prompts with
different salts never meet."""


class PrefixIndex(Protocol):
    """Finds blocks by the tokens they were computed from.

    A block that the index knows and nobody refers to is idle: the index keeps it until `evict`.
    shares: whether it ever finds anything.
    """

    shares: bool

    @property
    def idle(self) -> int:
        """Blocks it keeps that nobody refers to; all of them can be evicted."""
        ...

    def match(self, node: Node, ids: Tokens, block_size: int) -> tuple[Ints, Node]:
        """The blocks of the longest known prefix of `ids` after `node`, and the node that they lead to. At least one
        token of `ids` is left to compute.

        The blocks found are not idle any more: the caller refers to them from now on.
        """
        ...

    def publish(self, node: Node, ids: Tokens, blocks: Ints) -> Node:
        """`blocks` hold the KV entries of `ids` (whole blocks) after `node`; returns the node that this leads to."""
        ...

    def release(self, blocks: Ints) -> Ints:
        """Nobody refers to `blocks` (in sequence order) any more: keep the known ones as idle, return the others."""
        ...

    def evict(self, count: int) -> Ints:
        """Forget `count` idle blocks, the longest idle first, and return them. count is at most `idle`."""
        ...


class NoPrefix:
    """Every prompt is computed from its first token."""

    shares = False
    idle = 0

    def match(self, node: Node, ids: Tokens, block_size: int) -> tuple[Ints, Node]:  # noqa: ARG002
        return NO_INTS, node

    def publish(self, node: Node, ids: Tokens, blocks: Ints) -> Node:  # noqa: ARG002
        return node

    def release(self, blocks: Ints) -> Ints:
        return blocks

    def evict(self, count: int) -> Ints:
        assert count == 0, "nothing is ever idle"
        return NO_INTS


class HashPrefix:
    """Whole blocks are found again by a hash of their tokens and of what stands before them.

    The idea is vLLM's automatic prefix caching. The key is (node of the parent, the block's tokens) and a dictionary
    compares keys, so a hit is exact whatever collides. A node is made once and never again: what hangs below a
    forgotten node is not found any more and ages out. One entry a block, so the pool bounds the memory.
    """

    shares = True

    def __init__(self) -> None:
        self._nodes: dict[tuple[Node, bytes], tuple[int, int]] = {}  # -> node, block
        self._keys: dict[int, tuple[Node, bytes]] = {}  # block -> key
        self._idle: OrderedDict[int, None] = OrderedDict()  # the longest idle first
        self._last = 0

    @property
    def idle(self) -> int:
        return len(self._idle)

    def match(self, node: Node, ids: Tokens, block_size: int) -> tuple[Ints, Node]:
        raw, width = ids.tobytes(), block_size * ids.itemsize
        found: list[int] = []
        for start in range(0, (len(ids) - 1) // block_size * width, width):
            hit = self._nodes.get((node, raw[start : start + width]))
            if hit is None:
                break
            node, block = hit
            self._idle.pop(block, None)
            found.append(block)
        return np.array(found, np.int64), node

    def publish(self, node: Node, ids: Tokens, blocks: Ints) -> Node:
        raw, width = ids.tobytes(), ids.nbytes // len(blocks)
        for at, block in enumerate(blocks.tolist()):
            key = (node, raw[at * width : (at + 1) * width])
            hit = self._nodes.get(key)
            if hit is None:
                self._last += 1
                hit = self._nodes[key] = self._last, block
                self._keys[block] = key
            node = hit[0]  # of whoever was first; the caller's own copy stays unknown and is freed with its last user
        return node

    def release(self, blocks: Ints) -> Ints:
        unknown: list[int] = []
        for block in reversed(blocks.tolist()):  # tails become idle first, so they are forgotten before their heads
            if block in self._keys:
                self._idle[block] = None
            else:
                unknown.append(block)
        return np.array(unknown, np.int64)

    def evict(self, count: int) -> Ints:
        blocks = [self._idle.popitem(last=False)[0] for _ in range(count)]
        for block in blocks:
            del self._nodes[self._keys.pop(block)]
        return np.array(blocks, np.int64)
