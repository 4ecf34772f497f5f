"""Block pool: what is taken is referred to, what nobody refers to can be given back."""

from __future__ import annotations

import numpy as np
import pytest

from ridgeline.kv.pool import BlockPool


def test_taken_blocks_are_distinct_and_come_back() -> None:
    pool = BlockPool(8)
    first, second = pool.take(3), pool.take(5)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(8))
    assert pool.free == 0
    unused = pool.drop(first)
    assert unused.tolist() == first.tolist()
    pool.give(unused)
    pool.check(idle=0)
    assert pool.free == 3


def test_a_shared_block_is_unused_only_after_its_last_reference() -> None:
    pool = BlockPool(4)
    blocks = pool.take(2)
    pool.share(blocks[:1])
    assert pool.drop(blocks).tolist() == blocks[1:].tolist()
    assert pool.drop(blocks[:1]).tolist() == blocks[:1].tolist()


def test_more_than_is_free_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="more blocks"):
        BlockPool(2).take(3)


def test_check_notices_a_lost_and_a_doubled_block() -> None:
    pool = BlockPool(4)
    blocks = pool.take(2)
    pool.drop(blocks)
    with pytest.raises(AssertionError, match="neither free"):
        pool.check(idle=0)
    pool.give(np.repeat(blocks[:1], 2))
    with pytest.raises(AssertionError, match="twice"):
        pool.check(idle=0)
