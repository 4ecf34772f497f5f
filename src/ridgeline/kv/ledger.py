"""Ledger: which slot holds which KV blocks, in which order. Knows slots, ids and counts; no request and no tensor."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from ridgeline.core.errors import ConfigError
from ridgeline.core.types import Bools, Ints, Tokens
from ridgeline.kv.pool import BlockPool
from ridgeline.kv.prefix import Node, PrefixIndex

NOTHING: Ints = np.empty((3, 0), np.int64)
NOTHING.flags.writeable = False


class Ledger:
    """Keys and values stay, in blocks that a sequence takes as it grows; blocks of equal prefixes can be shared.

    A table of blocks per slot, references, and the prefix index (paging is vLLM's idea: Kwon and others, 2023).

    A release does not free anything by itself: the references end when the newest plan made before the release has
    been collected, because a launch in flight may still read or write those blocks.
    epoch: changes whenever a reservation that was refused might succeed. keeps: what a step computed is there in the
    next one.
    """

    keeps = True

    def __init__(self, *, slots: int, max_len: int, num_blocks: int, block_size: int, prefix: PrefixIndex) -> None:
        if min(slots, max_len, num_blocks, block_size) < 1:
            raise ConfigError(
                f"the KV cache needs at least one slot, token, block and token a block; got {slots} slots, "
                f"{max_len} tokens, {num_blocks} blocks of {block_size} tokens"
            )
        self.slots, self.max_len, self.num_blocks, self.block_size = slots, max_len, num_blocks, block_size
        self.epoch = 0
        self._pool, self._prefix = BlockPool(num_blocks), prefix
        self._table: Ints = np.zeros((slots, -(-max_len // block_size)), np.int64)
        self._room: Ints = np.zeros(slots, np.int64)  # blocks held times block_size: compared at every step
        self._index: Ints = np.arange(self._table.shape[1])
        self._published = [0] * slots
        self._node: list[Node] = [""] * slots
        self._limbo: deque[tuple[int, Ints]] = deque()  # (serial, blocks): references that end when it is collected

    @property
    def free(self) -> int:
        """Blocks that a reservation can have now, idle ones of the prefix index included."""
        return self._pool.free + self._prefix.idle

    @property
    def in_use(self) -> int:
        return self.num_blocks - self.free

    def holds(self, slot: int) -> int:
        """Blocks of this slot."""
        return int(self._room[slot]) // self.block_size

    @property
    def shares(self) -> bool:
        """Whether seat() ever finds anything."""
        return self._prefix.shares

    def seat(self, slot: int, ids: Tokens, salt: str = "") -> Ints:
        """The slot takes the blocks of the longest cached prefix of `ids`; returns them. Salts never share."""
        found, self._node[slot] = self._prefix.match(salt, ids, self.block_size)
        count = len(found)
        if count:
            self._pool.share(found)
            self._table[slot, :count] = found
        self._room[slot], self._published[slot] = count * self.block_size, count
        return found

    def reserve(self, rows: Ints, target: Ints) -> Ints | None:
        """Blocks so that each row has room for `target` entries, all or None.

        Returns [3, blocks]: slot, index in the slot's table, block.
        """
        short = (target > self._room[rows]).nonzero()[0]
        if not len(short):
            return NOTHING
        rows = rows[short]
        room = self._room[rows]
        need = (target[short] - room + self.block_size - 1) // self.block_size
        total = int(need.sum())
        if total > self.free:
            return None
        self._room[rows] = room + need * self.block_size
        slots, index = rows, room // self.block_size
        if total > len(rows):
            slots = np.repeat(rows, need)
            index = np.arange(total) + np.repeat(index - np.cumsum(need) + need, need)
        new = self._take(total)
        new[0], new[1] = slots, index
        self._table[slots, index] = new[2]
        return new

    def within(self, rows: Ints, target: Ints) -> Bools:
        """[rows] who of them, the first before the others, can have room for `target` entries."""
        need = np.maximum(target - self._room[rows] + self.block_size - 1, 0) // self.block_size
        within: Bools = (need == 0) | (need.cumsum() <= self.free)
        return within

    def grow(self, slot: int, target: int, spare: int = 0) -> Ints | None:
        """`reserve` for one slot; None also where fewer than `spare` blocks would be left."""
        held = self.holds(slot)
        need = max(0, -(-target // self.block_size) - held)
        if need + spare > self.free:
            return None
        if not need:
            return NOTHING
        self._room[slot] = (held + need) * self.block_size
        new = self._take(need)
        new[0], new[1] = slot, self._index[held : held + need]
        self._table[slot, held : held + need] = new[2]
        return new

    def _take(self, count: int) -> Ints:
        """[3, count] with the blocks in its last row."""
        if count > self._pool.free:
            self._pool.give(self._prefix.evict(count - self._pool.free))
        new = np.empty((3, count), np.int64)
        new[2] = self._pool.take(count)
        return new

    def publish(self, slot: int, ids: Tokens) -> None:
        """The whole blocks of `ids`, all of them computed, may be found by others."""
        done, whole = self._published[slot], len(ids) // self.block_size
        if whole > done:
            part = ids[done * self.block_size : whole * self.block_size]
            self._node[slot] = self._prefix.publish(self._node[slot], part, self._table[slot, done:whole])
            self._published[slot] = whole
            self.epoch += 1

    def seal(self, rows: Ints, computed: Ints, serial: int) -> Ints:  # noqa: ARG002
        """The plan `serial` is made, after which each of these rows has `computed` entries; returns how many stay."""
        return computed

    def release(self, slot: int, serial: int) -> None:
        """The slot gives up its blocks; serial: the newest plan made so far."""
        self._limbo.append((serial, self._empty(slot)))

    def unseat(self, slot: int) -> None:
        """Take back a seat() that no plan has named."""
        self._drop(self._empty(slot))

    def collected(self, serial: int) -> None:
        """The launch of this plan, and so of all before it, is over."""
        while self._limbo and self._limbo[0][0] <= serial:
            self._drop(self._limbo.popleft()[1])

    def _empty(self, slot: int) -> Ints:
        blocks = self._table[slot, : self.holds(slot)].copy()
        self._room[slot] = 0
        return blocks

    def _drop(self, blocks: Ints) -> None:
        self._pool.give(self._prefix.release(self._pool.drop(blocks)))
        self.epoch += 1

    def check(self, seated: Iterable[int], tokens: Tokens) -> None:
        """tokens: [slots, positions]. A shared block stands at one index, under equal tokens."""
        count = np.zeros(self.num_blocks, np.int64)
        first: dict[int, tuple[int, int]] = {}
        seated = list(seated)
        for slot in seated:
            assert self._room[slot] % self.block_size == 0
            for i, block in enumerate(self._table[slot, : self.holds(slot)].tolist()):
                count[block] += 1
                other, at = first.setdefault(block, (slot, i))
                span = slice(i * self.block_size, (i + 1) * self.block_size)
                assert at == i, "a shared block stands at one index"
                assert other == slot or (tokens[other, span] == tokens[slot, span]).all(), "shared by other tokens"
        assert not np.delete(self._room, seated).any(), "an empty slot holds blocks"
        for _, blocks in self._limbo:
            np.add.at(count, blocks, 1)
        assert (count == self._pool.refs).all(), "references are tables and limbo"
        self._pool.check(self._prefix.idle)
