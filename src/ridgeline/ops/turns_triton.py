"""Both ends of a decode step in Triton, as ops/turns.py defines them. Knows slots and their tables; no model."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ridgeline.ops.declared import bytes_of, declare
from ridgeline.ops.dependent_triton import gdc_launch_dependents, gdc_wait, launch_options
from ridgeline.ops.turns import Begun, Tables

_FEW, _MANY = 16, 256
"""Seats of a tile: two sizes, so that two kernels are compiled for all numbers of seats."""


@triton.jit
def _begin(
    slots, lengths, tokens, blocks, token, position, context, table, max_len, width,
    WIDTH: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """A program: a seat. It waits for nobody, because it is launched when all before it is done."""
    if DEPENDENT:
        gdc_launch_dependents()
    seat = tl.program_id(0)
    slot = tl.load(slots + seat)
    at = tl.maximum(tl.load(lengths + slot) - 1, 0)
    tl.store(position + seat, at)
    tl.store(context + seat, at + 1)
    tl.store(token + seat, tl.load(tokens + slot * max_len + at))
    columns = tl.arange(0, WIDTH)
    held = tl.load(blocks + slot * width + columns, mask=columns < width, other=0)
    tl.store(table + seat * width + columns, held, mask=columns < width)


@triton.jit(do_not_specialize=["seats"])
def _end(
    slots, chosen, tokens, lengths, stopped, limits, stop_ids, ring, turn,
    seats, max_len, limit_stride, places,
    SEATS: tl.constexpr, STOPS: tl.constexpr, STOP_TILE: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program, because all of it must have read `turn` before it moves on. The tables are as the last step left
    them, and that was done when this step began: they are read while the choice is still being made, from L2, because
    no wait says that what an SM holds of them is new."""
    if DEPENDENT:
        gdc_launch_dependents()
    nth = tl.arange(0, STOP_TILE)[None, :]
    place = tl.load(turn, cache_modifier=".cg")
    for start in tl.range(0, seats, SEATS, num_stages=1):  # no load is to be moved ahead of the wait
        seat = start + tl.arange(0, SEATS)
        real = seat < seats
        slot = tl.load(slots + seat, mask=real, other=0, cache_modifier=".cg")
        length = tl.load(lengths + slot, mask=real, other=0, cache_modifier=".cg")
        limit = tl.load(limits + slot * limit_stride, mask=real, other=0, cache_modifier=".cg")
        over = tl.load(stopped + slot, mask=real, other=1, cache_modifier=".cg") != 0
        stops = tl.load(
            stop_ids + slot[:, None] * STOPS + nth,
            mask=real[:, None] & (nth < STOPS),
            other=-1,
            cache_modifier=".cg",
        )  # [SEATS, STOP_TILE]
        if DEPENDENT:
            gdc_wait()
        token = tl.load(chosen + seat, mask=real, other=0).to(tl.int32)
        appended = real & (over == 0) & (length < limit)
        hit = (tl.sum((stops == token[:, None]).to(tl.int32), 1) > 0) & appended
        tl.store(tokens + slot * max_len + length, token, mask=appended)
        length += appended.to(tl.int64)
        tl.store(lengths + slot, length, mask=appended)
        tl.store(stopped + slot, (over | hit | (length >= limit)).to(tl.uint8), mask=real)
        to = ring + place * 3 * seats + seat
        tl.store(to, token, mask=real)
        tl.store(to + seats, appended.to(tl.int32), mask=real)
        tl.store(to + 2 * seats, hit.to(tl.int32), mask=real)
    tl.debug_barrier()  # all threads have read the place
    tl.store(turn, (place + 1) % places)


class KernelTurns:
    """dependent: the end is launched before the choice is done, where the GPU can."""

    def __init__(self, tables: Tables, dependent: bool) -> None:
        self._tables, self._dependent = tables, dependent

    def begin(self, slots: Tensor) -> Begun:
        tables, seats, width = self._tables, slots.shape[0], self._tables.blocks.shape[1]

        def made(*size: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.empty(size, dtype=dtype, device=slots.device)

        begun = Begun(made(seats, dtype=torch.int32), made(seats), made(seats), made(seats, width, dtype=torch.int32))
        # Of the tables, a seat's length, token and blocks.
        declare(lambda: bytes_of(slots, begun.positions, begun.tokens, begun.block_tables) + _bytes_of(begun))
        _begin[(seats,)](
            slots, tables.lengths, tables.tokens, tables.blocks, begun.tokens, begun.positions, begun.contexts,
            begun.block_tables, tables.tokens.shape[1], width,
            WIDTH=triton.next_power_of_2(width), DEPENDENT=self._dependent, num_warps=1 if width <= 128 else 4,
        )  # fmt: skip
        return begun

    def end(self, slots: Tensor, chosen: Tensor, ring: Tensor, turn: Tensor) -> None:
        tables, seats, stops = self._tables, slots.shape[0], self._tables.stop_ids.shape[1]
        assert chosen.is_contiguous()
        assert ring.is_contiguous()
        # Of the tables, a seat's length (read and written), limit, stop ids, token and whether it has ended.
        a_seat = 3 * tables.lengths.element_size() + (stops + 1) * tables.tokens.element_size() + 2
        declare(lambda: bytes_of(slots, chosen) + 3 * seats * ring.element_size() + seats * a_seat)
        _end[(1,)](
            slots, chosen, tables.tokens, tables.lengths, tables.stopped.view(torch.uint8), tables.limits,
            tables.stop_ids, ring, turn, seats, tables.tokens.shape[1], tables.limits.stride(0), ring.shape[0],
            SEATS=_FEW if seats <= _FEW else _MANY, STOPS=stops, STOP_TILE=triton.next_power_of_2(stops),
            DEPENDENT=self._dependent, num_warps=4 if seats <= _FEW else 8, **launch_options(self._dependent),
        )  # fmt: skip


def _bytes_of(begun: Begun) -> int:
    return bytes_of(begun.tokens, begun.positions, begun.contexts, begun.block_tables)
