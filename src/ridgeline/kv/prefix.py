"""Prefix index: which computed blocks may serve another request. Knows tokens and block ids; counts no references."""

from __future__ import annotations

from typing import Protocol

from ridgeline.core.types import NO_INTS, Ints, Tokens


class PrefixIndex(Protocol):
    """Finds blocks by the tokens they were computed from.

    A block that the index knows and nobody refers to is idle: the index keeps it until `evict`. A node stands for a
    sequence of whole blocks from the start of a prompt; node 0 is the empty one.
    """

    @property
    def idle(self) -> int:
        """Blocks it keeps that nobody refers to; all of them can be evicted."""
        ...

    def match(self, ids: Tokens, block_size: int) -> tuple[Ints, int]:
        """The blocks of the longest known prefix, and its node. At least one token of `ids` is left to compute.

        The blocks found are not idle any more: the caller refers to them from now on.
        """
        ...

    def publish(self, node: int, ids: Tokens, blocks: Ints) -> int:
        """`blocks` hold the KV entries of `ids` (whole blocks) after `node`; returns the node that this leads to."""
        ...

    def release(self, blocks: Ints) -> Ints:
        """Nobody refers to `blocks` (in sequence order) any more: keep the known ones as idle, return the others."""
        ...

    def evict(self, count: int) -> Ints:
        """Forget `count` idle blocks, the longest idle first, and return them. count is at most `idle`."""
        ...


class NoPrefix:
    """Nothing is shared."""

    idle = 0

    def match(self, ids: Tokens, block_size: int) -> tuple[Ints, int]:  # noqa: ARG002
        return NO_INTS, 0

    def publish(self, node: int, ids: Tokens, blocks: Ints) -> int:  # noqa: ARG002
        return node

    def release(self, blocks: Ints) -> Ints:
        return blocks

    def evict(self, count: int) -> Ints:
        assert count == 0, "nothing is ever idle"
        return NO_INTS
