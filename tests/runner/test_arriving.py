"""Kernels that are compiled beside service: tokens are the same before and after, and a failure stops nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial

import pytest
import torch

from ridgeline.attention.paged import Paged
from ridgeline.attention.paged_soon import PagedSoon
from ridgeline.core.steptime import TimedSteps
from ridgeline.models.gpt2_weights import random_gpt2
from ridgeline.models.linear_cuda import CudaDense
from ridgeline.ops.coming import Coming, early
from ridgeline.ops.gemv import Chosen, FewRows, Layer
from ridgeline.runner.arriving import Arriving, Later
from ridgeline.runner.graphs import Graphs
from ridgeline.runner.launched import Replayed, ReplayedMixed
from tests.runner.asked import PROMPTS
from tests.tensors import TINY, Definitions, Driver, cpu, make_runner

NEW = 12


class Counted(Definitions):
    """Counts its calls by thread."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.calls = 0

    def linear(self, x: torch.Tensor, layer: Layer, residual: torch.Tensor | None = None) -> torch.Tensor:
        self.threads.add(threading.get_ident())
        self.calls += 1
        return super().linear(x, layer, residual)


class House:
    """A runner that serves, and its kernels on the way."""

    def __init__(self, choose: Callable[[], Chosen], monkeypatch: pytest.MonkeyPatch) -> None:
        # Sums of embeddings are a kernel of their own, which needs a GPU.
        monkeypatch.setattr("ridgeline.models.linear_cuda._SUM_OF_ROWS", _sum_of_rows)
        monkeypatch.setattr("ridgeline.models.many_rows._ADD_LAYER_NORM", _add_layer_norm)
        self.coming, self.attention = Coming(choose), PagedSoon()
        self.model = random_gpt2(TINY, 0, CudaDense(self.coming, torch.float32), cpu())
        self.runner = make_runner(self.model, attention=self.attention, graphs=partial(Later, Graphs))
        self.told: list[str] = []
        self.timed: list[TimedSteps | None] = []

    def arriving(self) -> Arriving:
        assert isinstance(self.runner.graphs, Later)
        understudy = partial(make_runner, self.model, attention=Paged(), graphs=Graphs)
        parts = self.attention, self.runner.graphs
        return Arriving(self.coming, understudy, parts, self.timed.append, self.told.append)


def _sum_of_rows(
    first: torch.Tensor, ids: torch.Tensor, second: torch.Tensor, places: torch.Tensor, dtype: torch.dtype, _: bool
) -> torch.Tensor:
    return (first[ids] + second[places]).to(dtype)


def _add_layer_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    total = x + residual
    return total, torch.nn.functional.layer_norm(total, weight.shape, weight, bias, eps)


def arrived(arriving: Arriving) -> None:
    while arriving.idle():
        arriving.between()


@torch.inference_mode()
def test_tokens_are_the_same_before_and_after_and_replays_begin_then(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, kernels = threading.Event(), Counted()

    def choose() -> Chosen:
        assert gate.wait(60)
        return Chosen(kernels, "counted products")

    house = House(choose, monkeypatch)
    house.runner.rehearse()
    driver, arriving = Driver(house.runner), house.arriving()
    for slot, prompt in enumerate(PROMPTS[:3]):
        driver.join(slot, prompt, len(prompt) + NEW)
    for _ in range(4):
        arriving.between()
        flight = driver.launch(driver.work())
        assert not isinstance(flight.launched, Replayed | ReplayedMixed)
        driver.collect(flight)
    assert kernels.calls == 0
    assert house.told == []
    gate.set()
    arrived(arriving)
    assert threading.get_ident() not in kernels.threads, "what compiles is another thread"
    assert house.timed[0] is not None
    assert "counted products" in house.told[0]
    before, replays = kernels.calls, 0
    while work := driver.work():
        flight = driver.launch(work)
        replays += isinstance(flight.launched, Replayed)
        driver.collect(flight)
    assert kernels.calls > before
    assert replays >= NEW - 6
    alone = Driver(make_runner(random_gpt2(TINY, 0, CudaDense(Chosen(None, ""), torch.float32), cpu())))
    for slot, prompt in enumerate(PROMPTS[:3]):
        alone.join(slot, prompt, len(prompt) + NEW)
    while work := alone.work():
        alone.step(work)
    assert driver.known == alone.known


def test_what_cannot_be_compiled_leaves_the_operations_of_pytorch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def choose() -> Chosen:
        raise RuntimeError("no compiler on this machine")

    house = House(choose, monkeypatch)
    with caplog.at_level(logging.WARNING, logger="ridgeline"):
        arrived(house.arriving())
    assert "go on computing every step: no compiler on this machine" in caplog.text
    assert house.told == []
    driver = Driver(house.runner)
    driver.join(0, PROMPTS[0], len(PROMPTS[0]) + 2)
    while work := driver.work():
        assert not isinstance(driver.launch(work).launched, Replayed | ReplayedMixed)
    assert house.coming.kernels is None


def test_kernels_count_early_only_where_they_are_compiled() -> None:
    kernels: FewRows = Counted()
    coming = Coming(lambda: Chosen(kernels, "found"))
    with early():
        assert coming.kernels is None, "nobody has looked for them"
        coming.find()
        assert coming.kernels is kernels
        context = copy_context()
    assert coming.kernels is None
    assert context.run(lambda: coming.kernels) is kernels
    assert coming.found == "found"
    coming.take()
    assert coming.kernels is kernels
