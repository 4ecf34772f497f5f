"""NoCache: blocks are scratch of one launch each."""

from __future__ import annotations

import numpy as np
import pytest

from ridgeline.core.errors import ConfigError
from ridgeline.core.types import Ints
from ridgeline.kv.nocache import NoCache
from ridgeline.kv.prefix import HashPrefix, NoPrefix


def book(num_blocks: int = 6) -> NoCache:
    return NoCache(slots=3, max_len=12, num_blocks=num_blocks, block_size=4, prefix=NoPrefix())


def ints(*values: int) -> Ints:
    return np.array(values, np.int64)


def test_nothing_stays_when_a_plan_is_sealed_and_its_blocks_come_back_when_it_is_collected() -> None:
    ledger = book()
    ledger.grow(0, 5)
    ledger.grow(2, 9)
    assert ledger.seal(ints(0, 2), ints(5, 9), serial=1).tolist() == [0, 0]
    assert [ledger.holds(slot) for slot in range(3)] == [0, 0, 0]
    assert ledger.in_use == 5, "the launch is in flight"
    again = ledger.grow(0, 4)
    assert again is not None
    ledger.seal(ints(0), ints(4), serial=2)
    ledger.check([0, 2], np.zeros((3, 12), np.int32))
    ledger.collected(1)
    assert ledger.in_use == 1
    ledger.collected(2)
    assert ledger.in_use == 0


def test_a_prefix_cache_beside_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to share"):
        NoCache(slots=1, max_len=8, num_blocks=2, block_size=4, prefix=HashPrefix())
