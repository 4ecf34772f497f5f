"""Mixed: a step in which some rows compute a part of their prompt, in tensors of fixed shape, so that it is captured.

The host lays the rows end to end, as runner/inputs.py does, and fills up what is left with nobody's: one upload into a
buffer that stays where it is. What the device knows already (tokens, blocks) is looked up there. Knows no plan's
promise beyond the next token, and not which shapes are worth a graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ridgeline.attention.base import MixedAttention
from ridgeline.attention.batch import Mixed
from ridgeline.core.types import Ints, Plan
from ridgeline.ops.turns import Turns
from ridgeline.runner.forward import Model
from ridgeline.runner.ring import Ring
from ridgeline.runner.slots import SlotTables
from ridgeline.runner.steady import ChooseThere

TOKENS_A_SPAN = 8
"""A step has room for a row of many queries for so many of its tokens: more would be more tiles of nobody, in all
layers."""


@dataclass(frozen=True, slots=True)
class Shape:
    """seats: rows. tokens: token positions, of all rows together. tiles: of queries."""

    seats: int
    tokens: int
    tiles: int

    @staticmethod
    def of(seats: int, tokens: int, tile: int) -> Shape:
        return Shape(seats, tokens, tokens // tile + min(seats, tokens // TOKENS_A_SPAN))

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """Of Given, in order."""
        by_token, by_row = (self.tokens,), (self.seats,)
        return by_token, by_token, by_token, by_row, by_row, by_row, by_row, (self.seats, 4), (self.tiles, 2)

    @property
    def size(self) -> int:
        return sum(int(np.prod(part)) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Given:
    """Parts of the buffer, on the host or on the device. slots, positions, owners: of each token position whose it is,
    where in its sequence, and its row. row_slots: of each row; wanted: the same, but the empty slot where nobody wants
    a token. The rest as in attention.batch.Mixed."""

    slots: Any
    positions: Any
    owners: Any
    row_slots: Any
    wanted: Any
    singles: Any
    places: Any
    facts: Any
    tiles: Any

    @staticmethod
    def cut(whole: Any, shape: Shape) -> Given:
        """whole: [shape.size], an array or a tensor; the parts are views."""
        parts, first = [], 0
        for part in shape.parts:
            last = first + int(np.prod(part))
            parts.append(whole[first:last].reshape(part))
            first = last
        return Given(*parts)


class MixedSteps:
    """`give` a plan, and run the step of its shape. most: the largest of the shapes."""

    def __init__(
        self, model: Model, attention: MixedAttention, tables: SlotTables, turns: Turns, ring: Ring, most: Shape
    ) -> None:
        self._model, self._attention, self._tables, self._turns, self._ring = model, attention, tables, turns, ring
        self._whole = torch.zeros(most.size, dtype=torch.int64, device=tables.device.torch_device)

    def step(self, shape: Shape, choose: ChooseThere) -> None:
        """What was given, and a token for every row that wants one."""
        given, tables = Given.cut(self._whole, shape), self._tables
        size = tables.sizes.block_size
        at, offset = given.positions // size, given.positions % size
        mixed = Mixed(
            tokens=tables.tokens[given.slots, given.positions],
            positions=given.positions,
            writes=tables.blocks[given.slots, at].long() * size + offset,
            rows=given.owners,
            block_tables=tables.blocks[given.row_slots],
            singles=given.singles,
            places=given.places,
            facts=given.facts,
            tiles=given.tiles,
        )
        meta = self._attention.plan_mixed(mixed)
        hidden = self._model.hidden(mixed, lambda layer, q, k, v: self._attention(layer, q, k, v, meta))
        chosen = choose(hidden[given.places], given.wanted)
        self._turns.end(given.wanted, chosen, self._ring.of(shape.seats), self._ring.turn)

    def give(self, plan: Plan, shape: Shape) -> None:
        self._put(packed(plan, shape, self._attention.tile, self._tables.empty_slot), shape)

    def rehearse(self, shape: Shape) -> None:
        """Everything is nobody's."""
        self._put(nobodys(shape, self._tables.empty_slot), shape)

    def _put(self, whole: Ints, shape: Shape) -> None:
        (given,) = self._tables.device.upload([whole])
        self._whole[: shape.size].copy_(given)


def spans_of(plan: Plan) -> int:
    """Rows of many queries."""
    return int(np.count_nonzero(plan.counts > 1))


def nobodys(shape: Shape, empty_slot: int) -> Ints:
    whole: Ints = np.zeros(shape.size, np.int64)
    given = Given.cut(whole, shape)
    given.slots[:] = given.row_slots[:] = given.wanted[:] = empty_slot
    given.tiles[:] = -1
    return whole


def packed(plan: Plan, shape: Shape, tile: int, empty_slot: int) -> Ints:
    """The buffer of a plan that the shape has room for: rows, tokens and rows of many queries."""
    whole = nobodys(shape, empty_slot)
    given, rows, counts = Given.cut(whole, shape), len(plan.rows), plan.counts
    ends = counts.cumsum()
    begins, total = ends - counts, int(ends[-1])
    owners = np.repeat(np.arange(rows), counts)
    given.slots[:total], given.owners[:total] = plan.rows[owners], owners
    given.positions[:total] = np.arange(total) + (plan.starts - begins)[owners]
    given.row_slots[:rows], given.places[:rows] = plan.rows, ends - 1
    given.wanted[:rows] = np.where(plan.promise > 0, plan.rows, empty_slot)
    given.singles[:rows] = np.where(counts == 1, plan.starts + 1, 0)
    (many,) = np.nonzero(counts > 1)
    facts = np.stack((begins, ends, plan.starts, plan.starts + counts), axis=1)
    given.facts[many] = facts[many]
    tiles = -(-counts[many] // tile)
    nth = np.arange(tiles.sum()) - np.repeat(tiles.cumsum() - tiles, tiles)
    given.tiles[: len(nth)] = np.stack((np.repeat(many, tiles), nth * tile), axis=1)
    return whole
