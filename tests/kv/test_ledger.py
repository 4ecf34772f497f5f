"""Ledger: room for tokens in whole blocks, shared prefixes, and references that outlive their slot."""

from __future__ import annotations

import numpy as np
import pytest

from ridgeline.core.errors import ConfigError
from ridgeline.core.types import Ints, Tokens
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.prefix import HashPrefix, NoPrefix, PrefixIndex

SLOTS, MAX_LEN = 4, 16


def ledger(num_blocks: int = 8, block_size: int = 4, prefix: PrefixIndex | None = None) -> Ledger:
    return Ledger(
        slots=SLOTS,
        max_len=MAX_LEN,
        num_blocks=num_blocks,
        block_size=block_size,
        prefix=NoPrefix() if prefix is None else prefix,
    )


def ids(*tokens: int) -> Tokens:
    return np.array(tokens, np.int32)


def ints(*values: int) -> Ints:
    return np.array(values, np.int64)


def test_rows_get_the_blocks_they_lack_and_no_more() -> None:
    book = ledger()
    assert book.grow(0, 5) is not None
    new = book.reserve(ints(0, 1, 2), ints(8, 9, 1))
    assert new is not None
    slots, index, blocks = new.tolist()
    assert list(zip(slots, index, strict=True)) == [(1, 0), (1, 1), (1, 2), (2, 0)]
    assert len(set(blocks)) == 4
    assert [book.holds(slot) for slot in range(SLOTS)] == [2, 3, 1, 0]
    assert book.in_use == 6
    again = book.reserve(ints(0, 1, 2), ints(8, 12, 4))
    assert again is not None
    assert again.shape == (3, 0)


def test_a_reservation_is_whole_or_nothing() -> None:
    book = ledger(num_blocks=3)
    assert book.grow(0, 8) is not None
    assert book.reserve(ints(0, 1), ints(12, 4)) is None
    assert book.grow(1, 4, spare=1) is None
    assert book.free == 1
    assert book.grow(1, 4) is not None


def test_blocks_come_free_when_the_newest_plan_made_before_the_release_is_collected() -> None:
    book = ledger(num_blocks=2)
    book.grow(0, 8)
    book.release(0, serial=7)
    assert book.holds(0) == 0
    book.collected(6)
    assert book.free == 0
    assert book.grow(1, 1) is None
    epoch = book.epoch
    book.collected(7)
    assert book.free == 2
    assert book.epoch != epoch, "whoever was refused may try again"


def test_a_prefix_is_shared_until_its_last_user_leaves() -> None:
    book, tokens = ledger(num_blocks=6, prefix=HashPrefix()), np.zeros((SLOTS, MAX_LEN), np.int32)
    text = ids(1, 2, 3, 4, 5, 6, 7, 8, 9)
    tokens[:2, : len(text)] = text
    assert len(book.seat(0, text)) == 0
    book.grow(0, len(text))
    book.publish(0, text[:8])
    found = book.seat(1, text)
    assert len(found) == 2
    book.grow(1, len(text))
    assert book.in_use == 4, "two shared blocks and one each"
    book.check([0, 1], tokens)
    book.release(0, 1)
    book.collected(1)
    book.check([1], tokens)
    assert book.in_use == 3
    book.release(1, 2)
    book.collected(2)
    assert book.in_use == 0
    assert book.seat(2, text).tolist() == found.tolist(), "idle blocks are found again"


def test_idle_blocks_are_given_up_when_others_need_them() -> None:
    book = ledger(num_blocks=3, prefix=HashPrefix())
    text = ids(1, 2, 3, 4, 5, 6, 7, 8, 9)
    book.seat(0, text)
    book.grow(0, len(text))
    book.publish(0, text[:8])
    book.release(0, 1)
    book.collected(1)
    assert book.free == 3
    assert book.grow(1, 12) is not None
    assert len(book.seat(2, text)) == 0
    book.check([1, 2], np.zeros((SLOTS, MAX_LEN), np.int32))


def test_a_seat_that_no_plan_named_is_taken_back_at_once() -> None:
    book = ledger(prefix=HashPrefix())
    text = ids(1, 2, 3, 4, 5)
    book.seat(0, text)
    book.grow(0, len(text))
    book.publish(0, text[:4])
    book.seat(1, text)
    book.unseat(1)
    book.check([0], np.zeros((SLOTS, MAX_LEN), np.int32))
    assert book.in_use == 2


@pytest.mark.parametrize("num_blocks", [0, -1])
def test_a_cache_without_blocks_is_refused_with_the_numbers(num_blocks: int) -> None:
    with pytest.raises(ConfigError, match=f"{num_blocks} blocks"):
        ledger(num_blocks=num_blocks)
