"""What the tensor tests share: small models, and greedy decoding through the runner with hand-made plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ridgeline.attention.batch import Batch
from ridgeline.attention.reference import Reference
from ridgeline.core.spec import ModelSpec
from ridgeline.core.types import NO_BLOCKS, NO_TOKENS, Join, Output, Plan, Sampling, Tokens
from ridgeline.device.base import Device
from ridgeline.device.cpu import CpuDevice
from ridgeline.models.gpt2 import GPT2
from ridgeline.models.gpt2_weights import random_gpt2
from ridgeline.models.linear import Dense, Scheme
from ridgeline.ops.linear import linear_kernel
from ridgeline.runner.forward import Eager
from ridgeline.runner.inputs import Packing, Ragged
from ridgeline.runner.runner import Runner
from ridgeline.runner.slots import Sizes

TINY = ModelSpec(layers=2, d_model=32, heads=4, d_inner=64, vocab=97, max_positions=64)


def cpu(dtype: torch.dtype = torch.float32) -> Device:
    # One thread: models this small gain nothing from more, and lose much where the machine is busy.
    return CpuDevice(dtype, threads=1, native_bfloat16=False)


def dense(device: Device) -> Scheme:
    return Dense(linear_kernel(device), device.compute)


def lively(spec: ModelSpec, seed: int = 0, device: Device | None = None) -> GPT2:
    """A random model whose greedy output varies: weights of deviation 0.02 repeat one token for ever."""
    device = cpu() if device is None else device
    model = random_gpt2(spec, seed, dense(device), device)
    with torch.inference_mode():
        for block in model.blocks:
            for part in (block.qkv, block.attn_out, block.mlp_in, block.mlp_out):
                weight_of(part).mul_(12.0)
    return model


def weight_of(part: Any) -> torch.Tensor:
    weight: torch.Tensor = part._inner._weight if hasattr(part, "_inner") else part._weight
    return weight


def make_runner(
    model: GPT2,
    packing: Packing | None = None,
    *,
    device: Device | None = None,
    slots: int = 8,
    block_size: int = 4,
    num_blocks: int | None = None,
    attention: Reference | None = None,
) -> Runner:
    length = model.spec.max_positions
    blocks = slots * -(-length // block_size) if num_blocks is None else num_blocks
    sizes = Sizes(slots, length, blocks, block_size)
    return Runner(model, attention or Reference(), packing or Ragged(), device or cpu(), sizes)


class Driver:
    """Hands plans to a runner: who has which slot and blocks, and nothing of a scheduler's judgement."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.free = list(range(runner.sizes.num_blocks))
        self.blocks: dict[int, list[int]] = {}
        self.known: dict[int, list[int]] = {}
        self.computed: dict[int, int] = {}
        self.joins: list[Join] = []
        self.leaves: list[int] = []
        self.positions = self.padding = 0

    def join(
        self,
        slot: int,
        prompt: Sequence[int],
        limit: int,
        sampling: Sampling | None = None,
        output: Sequence[int] = (),
    ) -> None:
        ids: Tokens = np.array(prompt, np.int32)
        out = np.array(output, np.int32) if output else NO_TOKENS
        self.joins.append(Join(slot, ids, out, (), limit, sampling or Sampling()))
        self.known[slot], self.computed[slot], self.blocks[slot] = [*prompt, *output], 0, []

    def leave(self, slot: int) -> list[int]:
        self.leaves.append(slot)
        self.free = self.blocks.pop(slot) + self.free  # the next to join gets them at once
        del self.computed[slot]
        return self.known.pop(slot)

    def step(self, counts: dict[int, int], seats: int = 0) -> Output:
        """counts: tokens to compute, by slot. Rows that reach their end make a token."""
        rows = np.array(list(counts), np.int64)
        starts = np.array([self.computed[slot] for slot in counts], np.int64)
        promise = np.array([self.computed[s] + n == len(self.known[s]) for s, n in counts.items()], np.int64)
        plan = Plan(
            1, rows, starts, np.array(list(counts.values()), np.int64), promise, tuple(self.joins),
            tuple(self.leaves), self._reserve(counts), seats=max(seats, len(rows)),
        )  # fmt: skip
        self.joins, self.leaves = [], []
        output = self.runner.collect(self.runner.launch(plan))
        for row, (slot, count) in enumerate(counts.items()):
            self.computed[slot] += count
            self.known[slot] += output.tokens[row, : output.counts[row]].tolist()
        self.positions += output.positions
        self.padding += output.padding
        return output

    def work(self) -> dict[int, int]:
        return {slot: len(ids) - self.computed[slot] for slot, ids in self.known.items()}

    def _reserve(self, counts: dict[int, int]) -> tuple[Any, Any, Any]:
        new = []
        for slot, count in counts.items():
            held = self.blocks[slot]
            while len(held) * self.runner.sizes.block_size < self.computed[slot] + count:
                new.append((slot, len(held), self.free[0]))
                held.append(self.free.pop(0))
        if not new:
            return NO_BLOCKS
        slots, index, blocks = np.array(new, np.int64).T.copy()
        return slots, index, blocks


def decode(
    runner: Runner,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    sampling: Sequence[Sampling] | None = None,
    chunk: int = 1 << 30,
) -> list[list[int]]:
    """All prompts at once, in chunks of a length, each until it has its tokens or stops. Returns the new tokens."""
    driver = Driver(runner)
    for slot, prompt in enumerate(prompts):
        asked = sampling[slot] if sampling else None
        driver.join(slot, prompt, len(prompt) + new_tokens, asked)
    results: dict[int, list[int]] = {}
    while driver.known:
        work = {slot: min(count, chunk) for slot, count in driver.work().items()}
        output = driver.step(work, seats=len(prompts))
        for row, slot in enumerate(work):
            made = len(driver.known[slot]) - len(prompts[slot])
            if output.finished[row] or made == new_tokens:
                results[slot] = driver.leave(slot)[len(prompts[slot]) :]
    return [results[slot] for slot in range(len(prompts))]


def random_prompts(rng: np.random.Generator, count: int, longest: int, vocab: int) -> list[list[int]]:
    return [rng.integers(0, vocab, rng.integers(1, longest + 1)).tolist() for _ in range(count)]


@torch.inference_mode()
def all_logits(model: GPT2, ids: Sequence[int], device: Device | None = None) -> torch.Tensor:
    """Logits of every position of one sequence, [tokens, vocab], computed at once."""
    device = device or cpu()
    attention, count = Reference(), len(ids)
    attention.store(model.spec, 1, count, device.dtype, device.torch_device)
    at = torch.arange(count)
    batch = Batch(
        tokens=torch.tensor(ids, dtype=torch.int32), positions=at, writes=at,
        block_tables=torch.zeros(1, 1, dtype=torch.int32), wanted=at, query_starts=np.array([0, count]),
        starts=np.array([0]),
        contexts=np.array([count]), max_query=count, max_context=count, padding=0,
    )  # fmt: skip
    return Eager(model, attention)(batch).to(torch.float32)
