"""NoCache: a ledger whose blocks are scratch. Knows slots, ids and counts; no request and no tensor."""

from __future__ import annotations

import numpy as np

from ridgeline.core.errors import ConfigError
from ridgeline.core.types import Ints, Tokens
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.prefix import PrefixIndex


class NoCache(Ledger):
    """Keys and values of all tokens before are computed again at every step, so that a cache's worth can be measured.

    Blocks are given up when the plan that names them is sealed, not when it is collected: so several launches may be
    in flight, each with blocks of its own.
    """

    keeps = False

    def __init__(self, *, slots: int, max_len: int, num_blocks: int, block_size: int, prefix: PrefixIndex) -> None:
        super().__init__(slots=slots, max_len=max_len, num_blocks=num_blocks, block_size=block_size, prefix=prefix)
        if prefix.shares:
            raise ConfigError("without a KV cache there is nothing to share: leave the prefix cache off")

    def publish(self, slot: int, ids: Tokens) -> None:
        """Nothing outlives a step."""

    def seal(self, rows: Ints, computed: Ints, serial: int) -> Ints:
        held = self._room[rows] // self.block_size
        blocks = self._table[rows][self._index < held[:, None]]
        self._limbo.append((serial, blocks))
        self._room[rows] = 0
        return np.zeros_like(computed)
