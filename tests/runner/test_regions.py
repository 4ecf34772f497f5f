"""Regions: a step is always in exactly one place, and whoever watched leaves nothing behind."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from ridgeline.attention.batch import Batch
from ridgeline.core.cost import REGIONS, Formats, StepShape, step_costs
from ridgeline.runner.places import REGION_OF
from ridgeline.runner.regions import HOST, PLACES, RegionClock, instrument, region_clock, watched
from ridgeline.runner.runner import Runner
from tests.tensors import TINY, Driver, Way, cpu, decode, lively, make_runner, random_prompts

OUTER, INNER = 1, 2


class Ticks:
    """Stamps whose clock stands still but where a test moves it."""

    def __init__(self) -> None:
        self.now = 0
        self._marks: list[int] = []

    def mark(self) -> None:
        self._marks.append(self.now)

    def read(self) -> list[int]:
        marks, self._marks = self._marks, []
        return [mark - marks[0] for mark in marks]

    def wait(self, ticks: int) -> None:
        self.now += ticks


class Trail:
    def __init__(self) -> None:
        self.entered: list[str] = []
        self.depth = 0

    def enter(self, place: int) -> None:
        self.entered.append(PLACES[place])
        self.depth += 1

    def leave(self) -> None:
        self.depth -= 1


def parts(runner: Runner) -> list[Any]:
    """Everything that instrument may replace."""
    model: Any = runner.eager.model
    blocks = [getattr(block, name) for block in model.blocks for name in vars(block)]
    own = [
        runner.forward,
        runner.sampler,
        runner.eager.plan,
        runner.eager.attend,
        model.embedding,
        model.norm,
        model.head,
    ]
    return own + blocks


def test_places_are_those_of_the_predicted_costs() -> None:
    costs = step_costs(TINY, StepShape.decode(2, 8), Formats(32, 32, 32, "float32"))
    predicted = {(cost.region, cost.name) for cost in costs}
    watched_places = {(REGION_OF[place], place) for place in PLACES}
    assert watched_places - predicted == {("host", "host"), ("attention", "attention_plan")}
    assert predicted <= watched_places
    assert {REGION_OF[place] for place in PLACES} == set(REGIONS)


def test_the_innermost_place_wins_and_gives_back() -> None:
    ticks = Ticks()
    clock = RegionClock(ticks)
    inner = watched(partial(ticks.wait, 100), clock, INNER)

    def work() -> None:
        ticks.wait(10)
        inner()
        ticks.wait(20)

    clock.begin()
    ticks.wait(1)
    watched(work, clock, OUTER)()
    ticks.wait(2)
    spent = clock.end()
    assert (spent[HOST], spent[OUTER]) == (3, 30)
    assert spent[INNER] == 100
    assert sum(spent) == ticks.now


def test_an_exception_leaves_the_place_and_the_next_step_begins_anew() -> None:
    ticks = Ticks()
    clock = RegionClock(ticks)

    def fail() -> None:
        ticks.wait(5)
        raise LookupError

    clock.begin()
    with pytest.raises(LookupError):
        watched(fail, clock, OUTER)()
    ticks.wait(7)
    assert clock.end()[HOST] == 7
    clock.begin()
    with pytest.raises(LookupError):
        watched(fail, clock, OUTER)()
    clock.begin()  # without an end
    ticks.wait(3)
    assert sum(clock.end()) == 3


def test_every_place_of_a_step_is_watched_in_its_order() -> None:
    runner, trail = make_runner(lively(TINY)), Trail()
    driver = Driver(runner)
    driver.join(0, [1, 2, 3], limit=8)
    with instrument(runner, trail):
        driver.step({0: 3})
    block = ["norm_1", "qkv", "attention", "attn_out", "norm_2", "mlp_in", "mlp_out"]
    assert trail.entered == ["attention_plan", "embedding", *block * TINY.layers, "norm", "head", "sampling"]
    assert trail.depth == 0


def test_the_very_same_objects_are_back_also_after_an_exception() -> None:
    runner = make_runner(lively(TINY))
    before = parts(runner)
    with instrument(runner, Trail()):
        assert any(a is not b for a, b in zip(before, parts(runner), strict=True))
    assert all(a is b for a, b in zip(before, parts(runner), strict=True))
    with pytest.raises(KeyboardInterrupt), instrument(runner, Trail()), instrument(runner, Trail()):
        raise KeyboardInterrupt
    assert all(a is b for a, b in zip(before, parts(runner), strict=True))


def test_a_model_without_one_of_the_parts_is_left_as_it_was() -> None:
    model: Any = lively(TINY)
    runner = make_runner(model)
    before = parts(runner)
    norm = model.blocks[1].__dict__.pop("norm_2")
    with pytest.raises(AttributeError, match="norm_2"), instrument(runner, Trail()):
        pass
    model.blocks[1].norm_2 = norm
    assert {id(part) for part in before} == {id(part) for part in parts(runner)}


def test_another_forward_is_replaced_by_its_eager_twin_while_watched() -> None:
    runner, trail = make_runner(lively(TINY)), Trail()

    class Opaque:
        """Like a captured graph: nobody sees into it."""

        def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
            raise AssertionError(f"not while somebody watches: {batch}")

        def logits(self, hidden: Tensor) -> Tensor:
            raise AssertionError(f"not while somebody watches: {hidden}")

    opaque = runner.forward = Opaque()
    with instrument(runner, trail):
        decode(runner, [[1, 2, 3]], 2)
    assert "qkv" in trail.entered
    assert id(runner.forward) == id(opaque)


def test_tokens_are_the_same_and_places_cover_the_step() -> None:
    rng = np.random.default_rng(3)
    model, prompts = lively(TINY), random_prompts(rng, 3, 12, TINY.vocab)
    expected = decode(make_runner(model), prompts, 6, way=Way(horizon=2))
    runner, clock = make_runner(model), region_clock(cpu())
    clock.begin()
    with instrument(runner, clock):
        assert decode(runner, prompts, 6, way=Way(horizon=2)) == expected
    spent = clock.end()
    assert all(ns > 0 for ns in spent)
    assert decode(runner, prompts, 6, way=Way(horizon=2)) == expected
