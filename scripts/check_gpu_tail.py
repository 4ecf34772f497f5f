"""Whether the small kernels around a decode step are right on this GPU, and what each of them saves of a whole step.

    PYTHONPATH=src python -m scripts.check_gpu_tail --out run.json
    PYTHONPATH=src TRITON_INTERPRET=1 python -m scripts.check_gpu_tail --dry-run

A step is a replayed graph of GPT-2 124M with random weights, every row at a context of 480. Each way has one thing more
than the one before it; all of them must give the same hidden state and the same tokens, bit by bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scripts.gpu_bench import Bench, Case, Group, Numbers, main
from torch import Tensor

from ridgeline.attention.batch import Positions
from ridgeline.attention.paged import Paged
from ridgeline.core.spec import ModelSpec
from ridgeline.core.types import NO_BLOCKS, NO_INTS, NO_TOKENS, Join, Plan, Sampling
from ridgeline.device.base import Device
from ridgeline.device.choose import choose
from ridgeline.device.cpu import CpuDevice
from ridgeline.models.gpt2 import GPT2
from ridgeline.models.gpt2_weights import random_gpt2
from ridgeline.models.linear import DenseEmbedding
from ridgeline.models.linear_cuda import CudaDense
from ridgeline.ops import embed, embed_triton
from ridgeline.ops.gemv import Chosen, few_rows
from ridgeline.ops.gemv_triton import Kernels
from ridgeline.ops.paged import triton_ops
from ridgeline.ops.sample import greedy
from ridgeline.ops.turns import PlainTurns, Turns
from ridgeline.ops.turns_triton import KernelTurns
from ridgeline.runner.ring import Ring
from ridgeline.runner.slots import Sizes, SlotTables
from ridgeline.runner.steady import SteadySteps

GPT2_124M = ModelSpec(layers=12, d_model=768, heads=12, d_inner=3072, vocab=50257, max_positions=1024)
TINY = ModelSpec(layers=1, d_model=32, heads=4, d_inner=64, vocab=97, max_positions=64)
TURNS, TOGETHER = 16, 4
"""Steps that are compared, and steps of a repeat."""


def device_of(bench: Bench) -> Device:
    if bench.dry:
        return CpuDevice(torch.float32, threads=1, native_bfloat16=False)
    return choose("cuda", "bfloat16")


def chosen_of(bench: Bench, device: Device) -> Chosen:
    return Chosen(Kernels(False), "") if bench.dry else few_rows(device.torch_device, device.compute)


def joined(device: Device, slots: int, max_len: int, prompt: int, more: int, stops: tuple[int, ...]) -> SlotTables:
    """Every slot taken. The first makes `more` tokens at most, every next one one less, but one at least."""
    sizes = Sizes(slots, max_len, slots * -(-max_len // 64), 64)
    tables, width = SlotTables(sizes, device), sizes.table_width
    joins = tuple(
        Join(slot, np.arange(prompt, dtype=np.int32) % 50, NO_TOKENS, tuple(range(slot * width, (slot + 1) * width)),
             prompt + max(1, more - slot), Sampling(stop_ids=stops))
        for slot in range(slots)
    )  # fmt: skip
    tables.apply(Plan(1, NO_INTS, NO_INTS, NO_INTS, NO_INTS, joins, (), NO_BLOCKS, seats=0))
    return tables


def parity(bench: Bench) -> Iterator[Case]:
    device = device_of(bench)
    found = chosen_of(bench, device)
    yield "what is chosen", lambda: {"note": found.note}
    can = found.kernels is not None and found.kernels.dependent
    for dependent in (False, True) if can else (False,):
        way = "dependent" if dependent else "plain"
        for seats in bench.pick((1, 7, 16, 17, 256, 300), (3,)):
            yield f"both ends, {seats} seats, {way}", partial(_ends_right, device, seats, dependent)
        for rows in bench.pick((1, 8, 500), (3,)):
            yield f"embedding, {rows} rows, {way}", partial(_embedding_right, bench, rows, dependent)


def _ends_right(device: Device, seats: int, dependent: bool) -> Numbers:
    """A third of the seats is nobody's; some rows stop, and all reach their limit in the end."""
    slots = max(1, seats * 2 // 3)
    mine = joined(device, slots, 128, 20, 9, (3, 5))
    theirs = copy.copy(mine)
    for name in ("tokens", "lengths", "stopped"):
        setattr(theirs, name, getattr(mine, name).clone())
    seated = np.full(seats, mine.empty_slot, np.int64)
    seated[:slots] = np.random.default_rng(seats).permutation(slots)
    (at,) = device.upload([seated])
    ends: list[Turns] = [KernelTurns(mine, dependent), PlainTurns(theirs)]
    rings = [torch.zeros(4, 3, seats, dtype=torch.int32, device=device.torch_device) for _ in ends]
    turns = [torch.zeros(1, dtype=torch.int64, device=device.torch_device) for _ in ends]
    begun_same = True
    for _ in range(12):
        begun = [end.begin(at) for end in ends]
        for name in ("tokens", "positions", "contexts", "block_tables"):
            begun_same &= torch.equal(getattr(begun[0], name), getattr(begun[1], name))
        chosen = torch.randint(0, 60, (seats,), device=device.torch_device)
        for end, ring, turn in zip(ends, rings, turns, strict=True):
            end.end(at, chosen, ring, turn)
    names = ("tokens", "lengths", "stopped", "limits", "stop_ids", "blocks")
    return {
        "begun": begun_same,
        "tables": all(torch.equal(getattr(mine, name), getattr(theirs, name)) for name in names),
        "ring": torch.equal(*rings) and torch.equal(*turns),
        "all over": bool(mine.stopped.all()),
    }


def _embedding_right(bench: Bench, rows: int, dependent: bool) -> Numbers:
    first, second = bench.randn(500, 768), bench.randn(64, 768)
    ids, places = (torch.randint(0, most, (rows,), device=bench.device) for most in (500, 64))
    found = embed_triton.sum_of_rows(first, ids, second, places, bench.half, dependent)
    return {"right": torch.equal(found, embed.sum_of_rows(first, ids, second, places, bench.half))}


def ends(bench: Bench) -> Iterator[Case]:
    """A begin and an end, one after the other, in a graph."""
    device = device_of(bench)
    few = chosen_of(bench, device).kernels
    for seats in bench.pick((1, 8, 64, 256), (2,)):
        for name, kind in (("torch", PlainTurns), ("kernels", partial(KernelTurns, dependent=_depends(few)))):
            yield f"both ends, {seats} seats, {name}", partial(_ends_timed, bench, device, seats, kind)


def _depends(few: object) -> bool:
    return bool(getattr(few, "dependent", False))


def _ends_timed(bench: Bench, device: Device, seats: int, kind: Callable[[SlotTables], Turns]) -> Numbers:
    tables = joined(device, seats, 1024, 20, 900, (3, 5))
    turns, chosen = kind(tables), torch.full((seats,), 7, device=device.torch_device)
    at = torch.arange(seats, device=device.torch_device)
    ring = torch.zeros(64, 3, seats, dtype=torch.int32, device=device.torch_device)
    turn, pairs = torch.zeros(1, dtype=torch.int64, device=device.torch_device), bench.pick(10, 1)

    def run() -> None:
        for _ in range(pairs):
            turns.begin(at)
            turns.end(at, chosen, ring, turn)

    return bench.timed(bench.capture(run), of=pairs)


@dataclass(frozen=True)
class Way:
    """head: the fused one chooses. kernels: for both ends. adds: both embeddings at once."""

    head: bool = False
    kernels: bool = False
    adds: bool = False


WAYS = {
    "torch around the products": Way(),
    "+ head that chooses": Way(head=True),
    "+ kernels at both ends": Way(True, True),
    "+ embeddings at once": Way(True, True, True),
}


class Apart:
    """Embeddings looked up and added one after the other."""

    def __init__(self, token: DenseEmbedding, position: DenseEmbedding) -> None:
        self._token, self._position = token, position

    def __call__(self, batch: Positions) -> Tensor:
        return self._token(batch.tokens) + self._position(batch.positions)


def step(bench: Bench) -> Iterator[Case]:
    """Whole steps, a way more with every case."""
    device = device_of(bench)
    found, spec = chosen_of(bench, device), bench.pick(GPT2_124M, TINY)
    model = random_gpt2(spec, 0, CudaDense(found, device.compute), device)
    for seats in bench.pick((1, 8, 64, 256), (2,)):
        first: list[tuple[Tensor, Tensor]] = []
        for name, way in WAYS.items():
            yield f"{seats} rows, {name}", partial(_step, bench, device, model, way, seats, found, first)


def _step(
    bench: Bench, device: Device, model: GPT2, way: Way, seats: int, found: Chosen,
    first: list[tuple[Tensor, Tensor]],
) -> Numbers:  # fmt: skip
    """first: what the first way gave."""
    with torch.inference_mode():
        tables = joined(device, seats, model.spec.max_positions, bench.pick(480, 8), 10**6, ())
        tables.limits.fill_(tables.sizes.max_len)
        few = found.kernels
        attention = Paged(triton_ops())
        store = attention.store(model.spec, tables.sizes.num_blocks, 64, device.dtype, device)
        torch.manual_seed(0)
        for pages in store.layers:
            pages.values.normal_()
        ends: Turns = KernelTurns(tables, _depends(few)) if way.kernels else PlainTurns(tables)
        ring, embedding, kept = Ring(seats, device.torch_device), model.embedding, list[Tensor]()
        steps = SteadySteps(model, attention, tables, ends, ring)
        if not way.adds:
            model.embedding = Apart(embedding._token, embedding._position)  # type: ignore[assignment, arg-type]

        def choose(hidden: Tensor, _: Tensor) -> Tensor:
            kept[:] = [hidden]
            return model.greedy(hidden) if way.head else greedy(model.logits(hidden))

        try:
            replay = device.capture(partial(steps.step, seats, choose))  # nobody is seated so far
        finally:
            model.embedding = embedding
        steps.seat(np.arange(seats))
        begun, turns = ring.begin(TURNS), bench.pick(TURNS, 1)
        for _ in range(turns):
            replay()
        made = ring.made(begun, TURNS, seats)[:turns].clone()
        first.append((kept[0].clone(), made))
        same = [torch.equal(mine, theirs) for mine, theirs in zip(first[0], first[-1], strict=True)]
        together = bench.pick(TOGETHER, 1)
        numbers = bench.timed(lambda: [replay() for _ in range(together)], of=together)
        return numbers | {"same hidden": same[0], "same tokens": same[1], "all appended": bool(made[:, 1].all())}


UNTIMED: dict[str, Group] = {"parity": parity}
TIMED: dict[str, Group] = {"ends": ends, "step": step}

if __name__ == "__main__":
    main("scripts.check_gpu_tail", __doc__ or "", TIMED, UNTIMED, list(TIMED), timeout_s=90)
