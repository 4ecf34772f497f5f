"""Both ends of a step as kernels against their definition: on a GPU if there is one, or else by the interpreter."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from ridgeline.core.types import NO_TOKENS, Join, Plan, Sampling
from ridgeline.device.base import Device
from ridgeline.device.choose import choose
from ridgeline.ops.embed import sum_of_rows
from ridgeline.ops.turns import PlainTurns
from ridgeline.runner.slots import Sizes, SlotTables
from tests.tensors import cpu

pytest.importorskip("triton", reason="Triton is not installed: it comes for Linux on x86-64 alone")

from ridgeline.ops import embed_triton
from ridgeline.ops.turns_triton import KernelTurns

DEVICE: Device = choose("cuda", "float32") if torch.cuda.is_available() else cpu()
WHERE = DEVICE.torch_device
PLACES, VOCAB = 3, 10
STATE = ("tokens", "lengths", "stopped", "stop_ids", "blocks", "uniforms", "limits")


def joined(rng: np.random.Generator, slots: int) -> SlotTables:
    """Prompts, limits and stop tokens of all kinds; every fourth slot is empty, and one is at its limit already."""
    tables = SlotTables(Sizes(slots, max_len=11, num_blocks=40, block_size=4), DEVICE)
    joins = []
    for slot in range(slots):
        prompt = rng.integers(0, VOCAB, rng.integers(1, 8)).astype(np.int32)
        stops = tuple(rng.integers(0, VOCAB, rng.integers(0, 4)).tolist())
        asked = Sampling(temperature=slot % 2 * 0.5, seed=slot, stop_ids=stops)
        limit = len(prompt) + int(rng.integers(1, 4))
        if slot % 4 != 3:
            blocks = tuple(rng.integers(0, 40, 3).tolist())
            joins.append(Join(slot, prompt, NO_TOKENS, blocks, limit, asked))
    nothing = np.zeros(0, np.int64)
    none = (nothing, nothing, nothing)
    tables.apply(Plan(1, nothing, nothing, nothing, nothing, tuple(joins), (), none, seats=0))
    tables.limits[0] = tables.lengths[0]
    return tables


def same(mine: SlotTables, theirs: SlotTables) -> None:
    for name in STATE:
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name


@pytest.mark.parametrize(("slots", "seats"), [(1, 1), (3, 2), (6, 8), (20, 20), (300, 270)])
def test_steps_begin_and_end_as_defined(slots: int, seats: int) -> None:
    """Several steps, so that requests stop, reach their limits, and go on being computed after that."""
    seed = slots + seats
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    mine = joined(rng, slots)
    theirs = copy.copy(mine)
    for name in ("tokens", "lengths", "stopped"):
        setattr(theirs, name, getattr(mine, name).clone())
    seated = np.full(seats, mine.empty_slot, np.int64)
    seated[: min(seats, slots)] = rng.permutation(slots)[:seats]
    at = torch.from_numpy(seated).to(WHERE)
    rings = [torch.full((PLACES, 3, seats), -7, dtype=torch.int32, device=WHERE) for _ in range(2)]
    turns = [torch.ones(1, dtype=torch.int64, device=WHERE) for _ in range(2)]
    for _ in range(4):
        kernel, plain = KernelTurns(mine, dependent=False), PlainTurns(theirs)
        found, expected = kernel.begin(at), plain.begin(at)
        for name in ("tokens", "positions", "contexts", "block_tables"):
            value, wanted = getattr(found, name), getattr(expected, name)
            assert value.dtype is wanted.dtype
            assert torch.equal(value, wanted), name
        chosen = torch.from_numpy(rng.integers(0, VOCAB, seats)).to(WHERE)
        kernel.end(at, chosen, rings[0], turns[0])
        plain.end(at, chosen, rings[1], turns[1])
        same(mine, theirs)
        assert torch.equal(*rings)
        assert torch.equal(*turns)
    assert bool(mine.stopped[at].all()), "a request has three tokens to make at most"


def normal(*size: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size))).to(WHERE, dtype)


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize(("d", "dtype"), [(32, torch.float32), (24, torch.float16)])
def test_rows_of_two_tables_are_added(rows: int, d: int, dtype: torch.dtype) -> None:
    first, second = normal(9, 2 * d, dtype=dtype)[:, :d], normal(7, d, dtype=dtype)
    ids = torch.arange(rows, dtype=torch.int32, device=WHERE) * 2 % 9
    places = torch.arange(rows, device=WHERE) % 7
    found = embed_triton.sum_of_rows(first, ids, second, places, dtype, False)
    assert torch.equal(found, sum_of_rows(first, ids, second, places, dtype))
