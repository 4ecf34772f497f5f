"""HashPrefix: exact hits, salts apart, the longest idle forgotten first and tails before heads."""

from __future__ import annotations

import numpy as np

from ridgeline.core.types import Ints, Tokens
from ridgeline.kv.prefix import HashPrefix

SIZE = 4


def ids(*tokens: int) -> Tokens:
    return np.array(tokens, np.int32)


def blocks(*values: int) -> Ints:
    return np.array(values, np.int64)


def found(index: HashPrefix, tokens: Tokens, salt: str = "") -> list[int]:
    """What a match finds; it is idle again afterwards."""
    hit, _ = index.match(salt, tokens, SIZE)
    index.release(hit)
    return [int(block) for block in hit]


def test_whole_blocks_are_found_and_one_token_is_left_to_compute() -> None:
    index = HashPrefix()
    index.publish("", ids(*range(12)), blocks(5, 6, 7))
    assert found(index, ids(*range(12), 99)) == [5, 6, 7]
    assert found(index, ids(*range(12))) == [5, 6], "the last token of a prompt is always computed"
    assert found(index, ids(0, 1, 2, 3, 4, 5, 6, 99, 8)) == [5]
    assert found(index, ids(4, 5, 6, 7, 8)) == [], "a block is known by what stands before it, too"


def test_salts_never_meet() -> None:
    index = HashPrefix()
    index.publish("a", ids(*range(4)), blocks(1))
    index.publish("b", ids(*range(4)), blocks(2))
    prompt = ids(*range(5))
    assert [found(index, prompt, salt) for salt in ("a", "b", "c", "")] == [[1], [2], [], []]


def test_the_first_copy_stays_and_a_second_one_is_given_back() -> None:
    index = HashPrefix()
    index.publish("", ids(*range(4)), blocks(1))
    node = index.publish("", ids(*range(4)), blocks(2))
    assert index.publish(node, ids(*range(4, 8)), blocks(3)) != node
    assert found(index, ids(*range(9))) == [1, 3], "what follows a second copy follows the first"
    assert index.release(blocks(2)).tolist() == [2]


def test_the_longest_idle_goes_first_and_a_tail_before_its_head() -> None:
    index = HashPrefix()
    index.publish("", ids(*range(12)), blocks(1, 2, 3))
    index.publish("x", ids(*range(4)), blocks(4))
    assert len(index.release(blocks(1, 2, 3))) == 0
    index.release(blocks(4))
    assert index.idle == 4
    assert index.evict(2).tolist() == [3, 2]
    assert found(index, ids(*range(13))) == [1], "and it was used again just now"
    assert index.evict(1).tolist() == [4]
    assert index.idle == 1


def test_it_remembers_no_more_than_the_blocks_it_keeps() -> None:
    index = HashPrefix()
    for turn in range(200):
        index.publish("", ids(*range(turn, turn + 4)), blocks(7))
        index.release(blocks(7))
        assert index.evict(1).tolist() == [7]
        assert found(index, ids(*range(turn, turn + 5))) == []
    assert index.idle == 0
    assert [len(kept) for kept in vars(index).values() if hasattr(kept, "__len__")] == [0, 0, 0]
