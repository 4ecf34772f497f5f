"""Turns: the iterations of a launch that the host leads, one after the other: logits, choice, and what becomes of it.
Knows slot tables; knows no model and no request."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ridgeline.core.types import NO_BLOCKS, Ints, Plan
from ridgeline.runner.launched import Packed
from ridgeline.runner.sampler import Choose
from ridgeline.runner.scores import Scoring
from ridgeline.runner.slots import SlotTables

LogitsOf = Callable[[Plan, bool], tuple[Tensor, int, int]]
"""(iteration as a plan, whether it is the first) -> logits of the rows that may make a token, [rows, vocab]; token
positions that were computed; how many of them are padding."""


def in_turns(plan: Plan, tables: SlotTables, choose: Choose, scoring: Scoring, logits_of: LogitsOf) -> Packed:
    """A row that meets a stop token goes on to the end of the horizon: what it computes lies in its own blocks beyond
    its end, and nobody reads it."""
    makers: list[Ints] = []
    made: list[Tensor] = []
    positions = padding = 0
    for turn in range(plan.horizon):
        part = plan if turn == 0 else _turn(plan, turn)
        if not len(part.rows):
            break
        logits, computed, padded = logits_of(part, turn == 0)
        makers.append(np.flatnonzero(plan.promise > turn))
        slots = plan.rows[makers[-1]]
        chosen = choose(logits, slots)
        scoring.made(makers[-1], logits, chosen)
        (at,) = tables.device.upload([slots])
        appended, hit = tables.settle(at, chosen)
        made.append(torch.stack((chosen, appended, hit)))
        positions, padding = positions + computed, padding + padded
    sent = tables.device.download(torch.cat(made, -1))
    return Packed(
        plan.serial, len(plan.rows), makers, plan.counts[makers[0]], sent, *scoring.sent(), positions, padding
    )


def _turn(plan: Plan, turn: int) -> Plan:
    """A later iteration of a plan as a plan of its own: the rows that may still make a token, one token each."""
    going = plan.promise > turn
    starts = (plan.starts + plan.counts + turn - 1)[going]
    ones = np.ones_like(starts)
    return Plan(plan.serial, plan.rows[going], starts, ones, ones, (), (), NO_BLOCKS, seats=plan.seats)
