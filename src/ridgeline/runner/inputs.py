"""From a plan to a batch: how the rows of a launch lie in memory. Knows slots; knows no request.

Both ways give the same tokens. `Padded` is how batches were made before attention knew about rows of different
lengths, and is here so that what it wastes can be seen and measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ridgeline.attention.batch import Batch
from ridgeline.core.types import Ints, Plan
from ridgeline.runner.slots import SlotTables


class Packing(Protocol):
    """ragged: whether rows lie end to end, as long as they are."""

    ragged: bool

    @staticmethod
    def most_positions(slots: int, budget: int, max_len: int) -> int:
        """Token positions that a step can come to: what its workspace is planned for."""
        ...

    @staticmethod
    def seats(plan: Plan) -> int:
        """Rows that a step computes, those of nobody included."""
        ...

    def pack(self, plan: Plan, tables: SlotTables) -> Batch: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """A batch on the host. Of each token position: whose token it is, at which position of its sequence, and whose
    cache it writes (padding writes that of the empty slot, which is scratch). The rest as in Batch, by row."""

    token_slots: Ints
    positions: Ints
    write_slots: Ints
    row_slots: Ints
    wanted: Ints
    query_starts: Ints
    starts: Ints
    contexts: Ints
    padding: int


class Ragged:
    """Rows end to end, as long as they are."""

    ragged = True

    @staticmethod
    def most_positions(slots: int, budget: int, max_len: int) -> int:
        return min(budget, slots * max_len)

    @staticmethod
    def seats(plan: Plan) -> int:
        return len(plan.rows)

    def pack(self, plan: Plan, tables: SlotTables) -> Batch:
        ends = plan.counts.cumsum()
        query_starts = np.concatenate(([0], ends))
        token_slots = np.repeat(plan.rows, plan.counts)
        layout = Layout(
            token_slots=token_slots,
            positions=np.arange(ends[-1]) + np.repeat(plan.starts - query_starts[:-1], plan.counts),
            write_slots=token_slots,
            row_slots=plan.rows,
            wanted=ends[plan.promise > 0] - 1,
            query_starts=query_starts,
            starts=plan.starts,
            contexts=plan.starts + plan.counts,
            padding=0,
        )
        return _batch(layout, tables)


class Padded:
    """Every row as long as the longest, and a row for every seat: members that ended keep theirs.

    A padded position repeats its row's last token; it is computed like any other, and dropped.
    """

    ragged = False

    @staticmethod
    def most_positions(slots: int, budget: int, max_len: int) -> int:
        return slots * min(budget, max_len)  # one long chunk makes every seat as long

    @staticmethod
    def seats(plan: Plan) -> int:
        return max(plan.seats, len(plan.rows))

    def pack(self, plan: Plan, tables: SlotTables) -> Batch:
        seats, longest = self.seats(plan), int(plan.counts.max())
        nothing = np.zeros(seats - len(plan.rows), np.int64)
        row_slots = np.concatenate((plan.rows, nothing + tables.empty_slot))  # [seats]
        starts, counts = np.concatenate((plan.starts, nothing)), np.concatenate((plan.counts, nothing))
        column = np.arange(longest)
        real = column < counts[:, None]  # [seats, longest]
        last = np.maximum(counts - 1, 0)[:, None]
        query_starts = np.arange(seats + 1) * longest
        layout = Layout(
            token_slots=np.repeat(row_slots, longest),
            positions=(starts[:, None] + np.minimum(column, last)).ravel(),
            write_slots=np.where(real, row_slots[:, None], tables.empty_slot).ravel(),
            row_slots=row_slots,
            wanted=(query_starts[: len(plan.rows)] + plan.counts - 1)[plan.promise > 0],
            query_starts=query_starts,
            starts=starts,
            contexts=np.maximum(starts + counts, 1),
            padding=real.size - int(plan.counts.sum()),
        )
        return _batch(layout, tables)


def _batch(layout: Layout, tables: SlotTables) -> Batch:
    """One upload; what the device knows already (tokens, blocks) is looked up there."""
    slots, positions, write_slots, row_slots, wanted = tables.device.upload(
        [layout.token_slots, layout.positions, layout.write_slots, layout.row_slots, layout.wanted]
    )
    size, longest = tables.sizes.block_size, int(layout.contexts.max())
    return Batch(
        tokens=tables.tokens[slots, positions],
        positions=positions,
        writes=tables.blocks[write_slots, positions // size].long() * size + positions % size,
        block_tables=tables.blocks[row_slots, : -(-longest // size)],
        wanted=wanted,
        query_starts=layout.query_starts,
        starts=layout.starts,
        contexts=layout.contexts,
        max_query=int(np.diff(layout.query_starts).max()),
        max_context=longest,
        padding=layout.padding,
    )
