"""What the tensor tests share: small models, and greedy decoding through the runner with hand-made plans."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ridgeline.attention.base import AnyAttention
from ridgeline.attention.batch import Batch
from ridgeline.attention.reference import Reference
from ridgeline.core.spec import ModelSpec
from ridgeline.core.types import NO_BLOCKS, NO_TOKENS, Join, Output, Plan, Sampling, Scores, Tokens
from ridgeline.device.base import Device
from ridgeline.device.cpu import CpuDevice
from ridgeline.models.gpt2 import GPT2
from ridgeline.models.gpt2_weights import random_gpt2
from ridgeline.models.linear import Dense, Scheme
from ridgeline.ops.gemv import Layer, fused_linear, greedy_head
from ridgeline.ops.sample import greedy
from ridgeline.runner.forward import Eager
from ridgeline.runner.graphs import NoGraphs, Replays
from ridgeline.runner.inputs import Packing, Ragged
from ridgeline.runner.launched import Launched
from ridgeline.runner.runner import Runner
from ridgeline.runner.slots import Sizes

TINY = ModelSpec(layers=2, d_model=32, heads=4, d_inner=64, vocab=97, max_positions=64)


def cpu(dtype: torch.dtype = torch.float32) -> Device:
    # One thread: models this small gain nothing from more, and lose much where the machine is busy.
    return CpuDevice(dtype, threads=1, native_bfloat16=False)


def dense(device: Device) -> Scheme:
    return Dense.of(device, None)


def lively(spec: ModelSpec, seed: int = 0, device: Device | None = None) -> GPT2:
    """A random model whose greedy output varies: weights of deviation 0.02 repeat one token for ever."""
    device = cpu() if device is None else device
    model = random_gpt2(spec, seed, dense(device), device)
    with torch.inference_mode():
        for block in model.blocks:
            for part in (block.qkv, block.attn_out, block.mlp_in, block.mlp_out):
                weight_of(part).mul_(12.0)
    return model


class Definitions:
    """Kernels for few rows that are the definitions."""

    most, dependent = 8, False

    def linear(self, x: torch.Tensor, layer: Layer, residual: torch.Tensor | None = None) -> torch.Tensor:
        return fused_linear(x, layer, residual)

    def greedy_head(self, x: torch.Tensor, layer: Layer) -> tuple[torch.Tensor, torch.Tensor]:
        return greedy_head(x, layer)

    def greedy(self, logits: torch.Tensor) -> torch.Tensor:
        return greedy(logits)


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
    attention: AnyAttention | None = None,
    graphs: Callable[..., Replays] = NoGraphs,
) -> Runner:
    length = model.spec.max_positions
    blocks = slots * -(-length // block_size) if num_blocks is None else num_blocks
    sizes = Sizes(slots, length, blocks, block_size)
    return Runner(model, attention or Reference(), packing or Ragged(), device or cpu(), sizes, graphs=graphs)


@dataclass(frozen=True)
class Flight:
    """A launch that was not collected yet, and the slots of its rows."""

    launched: Launched
    slots: list[int]


class Driver:
    """Hands plans to a runner: who has which slot and blocks, and nothing of a scheduler's judgement.

    known: the tokens that the host has seen, by slot; ahead: how many there will be after what is in flight.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.free = list(range(runner.sizes.num_blocks))
        self.blocks: dict[int, list[int]] = {}
        self.known: dict[int, list[int]] = {}
        self.ahead: dict[int, int] = {}
        self.limits: dict[int, int] = {}
        self.computed: dict[int, int] = {}
        self.joins: list[Join] = []
        self.leaves: list[int] = []
        self.scores: dict[int, list[Scores]] = {}
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
        self.ahead[slot], self.limits[slot], self.scores[slot] = len(self.known[slot]), limit, []

    def leave(self, slot: int) -> list[int]:
        self.leaves.append(slot)
        self.free = self.blocks.pop(slot) + self.free  # the next to join gets them at once
        del self.computed[slot], self.ahead[slot]
        return self.known.pop(slot)

    def launch(self, counts: dict[int, int], seats: int = 0, horizon: int = 1) -> Flight:
        """counts: tokens to compute, by slot. Rows that reach their end make tokens, as many as the horizon has."""
        rows = np.array(list(counts), np.int64)
        starts = np.array([self.computed[slot] for slot in counts], np.int64)
        reach = {slot: self.computed[slot] + n == self.ahead[slot] for slot, n in counts.items()}
        promise = {slot: min(horizon, self.limits[slot] - self.ahead[slot]) if reach[slot] else 0 for slot in counts}
        for slot, count in counts.items():
            self.computed[slot] += count + max(0, promise[slot] - 1)
            self.ahead[slot] += promise[slot]
        plan = Plan(
            1, rows, starts, np.array(list(counts.values()), np.int64), np.array(list(promise.values()), np.int64),
            tuple(self.joins), tuple(self.leaves), self._reserve(counts), seats=max(seats, len(rows)), horizon=horizon,
        )  # fmt: skip
        self.joins, self.leaves = [], []
        self.runner.between()
        return Flight(self.runner.launch(plan), list(counts))

    def collect(self, flight: Flight) -> Output:
        output = self.runner.collect(flight.launched)
        for row, slot in enumerate(flight.slots):
            if slot in self.known:
                self.known[slot] += output.tokens[row, : output.counts[row]].tolist()
        for scores in output.scores:
            self.scores[flight.slots[scores.owner]].append(scores)
        self.positions += output.positions
        self.padding += output.padding
        return output

    def step(self, counts: dict[int, int], seats: int = 0, horizon: int = 1) -> Output:
        return self.collect(self.launch(counts, seats, horizon))

    def work(self) -> dict[int, int]:
        """What there is to compute for those who may still make a token."""
        return {slot: ahead - self.computed[slot] for slot, ahead in self.ahead.items() if ahead < self.limits[slot]}

    def _reserve(self, slots: Iterable[int]) -> tuple[Any, Any, Any]:
        new = []
        for slot in slots:
            held = self.blocks[slot]
            while len(held) * self.runner.sizes.block_size < self.computed[slot]:
                new.append((slot, len(held), self.free[0]))
                held.append(self.free.pop(0))
        if not new:
            return NO_BLOCKS
        slots, index, blocks = np.array(new, np.int64).T.copy()
        return slots, index, blocks


@dataclass(frozen=True)
class Way:
    """How work is cut: tokens of a prompt at once, iterations of a launch, launches in flight."""

    chunk: int = 1 << 30
    horizon: int = 1
    depth: int = 1


def decode(
    runner: Runner,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    sampling: Sequence[Sampling] | None = None,
    way: Way = Way(),
) -> list[list[int]]:
    """All prompts at once, each until it has its tokens or stops. Returns the new tokens."""
    return [made for made, _ in decode_scored(runner, prompts, new_tokens, sampling, way)]


def decode_scored(
    runner: Runner,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    sampling: Sequence[Sampling] | None = None,
    way: Way = Way(),
) -> list[tuple[list[int], list[Scores]]]:
    driver, flights = Driver(runner), deque[Flight]()
    for slot, prompt in enumerate(prompts):
        asked = sampling[slot] if sampling else None
        driver.join(slot, prompt, len(prompt) + new_tokens, asked)
    results: dict[int, list[int]] = {}
    while driver.known:
        while len(flights) < way.depth and (work := driver.work()):
            cut = {slot: min(count, way.chunk) for slot, count in work.items()}
            horizon = way.horizon if cut == work else 1
            flights.append(driver.launch(cut, len(prompts), horizon))
        flight = flights.popleft()
        output = driver.collect(flight)
        for row, slot in enumerate(flight.slots):
            if slot in driver.known and (output.finished[row] or len(driver.known[slot]) == driver.limits[slot]):
                results[slot] = driver.leave(slot)[len(prompts[slot]) :]
    return [(results[slot], driver.scores[slot]) for slot in range(len(prompts))]


def random_prompts(rng: np.random.Generator, count: int, longest: int, vocab: int) -> list[list[int]]:
    return [rng.integers(0, vocab, rng.integers(1, longest + 1)).tolist() for _ in range(count)]


@torch.inference_mode()
def all_logits(model: GPT2, ids: Sequence[int], device: Device | None = None) -> torch.Tensor:
    """Logits of every position of one sequence, [tokens, vocab], computed at once."""
    device = device or cpu()
    attention, count = Reference(), len(ids)
    attention.store(model.spec, 1, count, device.dtype, device)
    at = torch.arange(count)
    batch = Batch(
        tokens=torch.tensor(ids, dtype=torch.int32), positions=at, writes=at,
        block_tables=torch.zeros(1, 1, dtype=torch.int32), wanted=at, query_starts=np.array([0, count]),
        starts=np.array([0]),
        contexts=np.array([count]), max_query=count, max_context=count, padding=0,
    )  # fmt: skip
    return Eager(model, attention)(batch)[0].to(torch.float32)
