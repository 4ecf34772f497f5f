"""Steps with prompts as replays: their tokens are those of packed steps, whatever is nobody's of their fixed shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ridgeline.attention.paged import Paged
from ridgeline.attention.paged_rows import PagedRows
from ridgeline.core.types import NO_BLOCKS, Plan, Sampling, Scores
from ridgeline.device.cpu import CpuDevice
from ridgeline.ops.paged import REFERENCE
from ridgeline.runner.graphs import Graphs, mixed_seats_of, tokens_of
from ridgeline.runner.inputs import Padded
from ridgeline.runner.launched import Packed, Replayed, ReplayedMixed
from ridgeline.runner.mixed import Given, Shape, packed
from ridgeline.runner.runner import Runner
from tests.runner.asked import ASKED, MODEL, NEW, PROMPTS, SOLO
from tests.runner.tape import TapingDevice
from tests.runner.test_graphs import MADE, PLAIN, device_of, each_device, ready
from tests.tensors import Driver, Way, decode, decode_scored, make_runner

WAYS = [Way(), Way(chunk=5), Way(depth=2), Way(chunk=3, depth=3), Way(chunk=7, horizon=4, depth=2)]


def graphed(**more: Any) -> Runner:
    given: dict[str, Any] = {"attention": Paged(), "block_size": 16, "graphs": Graphs}
    return make_runner(MODEL, **given | more)


@each_device
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_any_way_gives_the_same_tokens(device: Callable[..., CpuDevice], way: Way) -> None:
    assert decode(graphed(device=device_of(device)), PROMPTS, NEW, PLAIN, way) == MADE


@each_device
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_requests_that_want_anything_of_the_sampler_have_it(device: Callable[..., CpuDevice], way: Way) -> None:
    assert decode(graphed(device=device_of(device)), PROMPTS, NEW, ASKED, way) == SOLO


def test_attention_by_rows_can_be_captured_too() -> None:
    runner = graphed(attention=PagedRows(REFERENCE), device=device_of(TapingDevice))
    ready(runner)
    assert decode(runner, PROMPTS, NEW, PLAIN, Way(chunk=5)) == MADE


def test_everything_is_a_replay_once_it_is_ready() -> None:
    runner = graphed(device=device_of(TapingDevice))
    ready(runner)
    driver = Driver(runner)
    for slot in range(3):
        driver.join(slot, PROMPTS[slot] + PROMPTS[7], 50, PLAIN[slot])
    first = driver.launch({0: 3, 1: 1, 2: len(PROMPTS[2]) + len(PROMPTS[7])})
    assert isinstance(first.launched, ReplayedMixed)
    output = driver.collect(first)
    assert output.counts.tolist() == [0, 0, 1], "who has not reached the end of the prompt makes nothing"
    assert output.positions == 64
    assert output.positions - output.padding == 3 + 1 + len(PROMPTS[2]) + len(PROMPTS[7])
    while work := driver.work():
        launched = driver.launch(work)
        assert isinstance(launched.launched, ReplayedMixed | Replayed)
        driver.collect(launched)


def test_results_for_a_row_that_ended_in_flight_are_of_no_use() -> None:
    runner = graphed()
    ready(runner)
    driver = Driver(runner)
    driver.join(0, PROMPTS[1], len(PROMPTS[1]) + 5, Sampling(stop_ids=tuple(range(64))))
    driver.join(1, PROMPTS[2], 40, Sampling(stop_ids=tuple(range(64, 97))))
    driver.step({0: len(PROMPTS[1])})
    late = driver.launch({0: 1, 1: len(PROMPTS[2])})
    output = driver.collect(late)
    assert isinstance(late.launched, ReplayedMixed)
    assert output.counts[1] == 1
    assert output.positions - output.padding == len(PROMPTS[2]) + output.counts[0]


def test_a_slot_that_had_biases_gives_none_to_the_next() -> None:
    runner = graphed()
    ready(runner)
    driver = Driver(runner)
    for asked in (Sampling(logit_bias=((5, 100.0),)), ASKED[3]):
        driver.join(3, PROMPTS[3], len(PROMPTS[3]) + NEW, asked)
        while work := driver.work():
            driver.step(work)
        made = driver.leave(3)[len(PROMPTS[3]) :]
    assert made == decode(make_runner(MODEL), [PROMPTS[3]], NEW, [ASKED[3]])[0]


@each_device
@pytest.mark.parametrize("way", [Way(), Way(chunk=4), Way(horizon=5, depth=2)], ids=str)
def test_log_probabilities_come_with_the_tokens(device: Callable[..., CpuDevice], way: Way) -> None:
    asked = [
        Sampling(
            temperature=n % 2, seed=n, top_p=0.9, logprobs=(0, 1, 2, None)[n % 4],
            prompt_logprobs=(2, 1, *[None] * 6)[n],
        )
        for n in range(len(PROMPTS))
    ]  # fmt: skip
    runner = graphed(device=device_of(device))
    ready(runner)
    found = decode_scored(runner, PROMPTS, NEW, asked, way)
    expected = decode_scored(make_runner(MODEL), PROMPTS, NEW, asked)
    for (tokens, scores), (same, those), sampling in zip(found, expected, asked, strict=True):
        assert tokens == same
        for prompt, most in ((False, sampling.logprobs), (True, sampling.prompt_logprobs)):
            ours, theirs = (joined([s for s in given if s.prompt == prompt], most) for given in (scores, those))
            assert len(ours) == len(theirs)
            assert prompt or bool(ours) == (most is not None)
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def joined(scores: list[Scores], most: int | None) -> list[Any]:
    """tokens, values, and as many of the likeliest as were asked for with theirs; of all positions."""
    if not scores:
        return []
    parts = [(s.tokens, s.values, s.top_ids[:, :most], s.top_values[:, :most]) for s in scores]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def test_a_prompt_that_is_to_be_scored_is_packed() -> None:
    runner = graphed()
    ready(runner)
    driver = Driver(runner)
    driver.join(0, PROMPTS[0], len(PROMPTS[0]) + 4, Sampling(prompt_logprobs=1))
    assert isinstance(driver.launch(driver.work()).launched, Packed)
    assert isinstance(driver.launch(driver.work()).launched, Replayed), "its output is not"


def test_padded_rows_are_packed() -> None:
    runner = graphed(packing=Padded())
    ready(runner)
    driver = Driver(runner)
    driver.join(0, PROMPTS[0], len(PROMPTS[0]) + 4)
    assert isinstance(driver.launch(driver.work()).launched, Packed)


def test_a_step_with_a_prompt_uploads_once_and_downloads_once() -> None:
    device = device_of(TapingDevice)
    traffic: list[str] = []
    upload, download = device.upload, device.download
    device.upload = lambda arrays: traffic.append("up") or upload(arrays)  # type: ignore[method-assign,func-returns-value]
    device.download = lambda tensor: traffic.append("down") or download(tensor)  # type: ignore[method-assign,func-returns-value]
    runner = graphed(device=device, block_size=64)
    ready(runner)
    driver = Driver(runner)
    driver.join(0, PROMPTS[0], 60)
    driver.join(1, list(range(30)), 60)
    driver.step({0: len(PROMPTS[0]), 1: 10})
    traffic.clear()
    driver.step({0: 1, 1: 10})
    assert traffic == ["up", "down"]


def test_rows_of_a_plan_in_the_buffer() -> None:
    """A row of one query has no tiles and a context; others have tiles and no context."""
    shape = Shape.of(4, 64, 8)
    rows, starts, counts, promise = (np.array(values) for values in ([5, 2, 3], [7, 0, 4], [1, 17, 3], [1, 1, 0]))
    plan = Plan(1, rows, starts, counts, promise, (), (), NO_BLOCKS, seats=3)
    given = Given.cut(packed(plan, shape, 8, empty_slot=9), shape)
    assert given.slots[:22].tolist() == [5] + [2] * 17 + [3] * 3 + [9]
    assert given.positions[:22].tolist() == [7, *range(17), 4, 5, 6, 0]
    assert given.wanted.tolist() == [5, 2, 9, 9]
    assert given.row_slots.tolist() == [5, 2, 3, 9]
    assert given.singles.tolist() == [8, 0, 0, 0]
    assert given.places.tolist() == [0, 17, 20, 0]
    assert given.facts.tolist() == [[0] * 4, [1, 18, 0, 17], [18, 21, 4, 7], [0] * 4]
    assert [tile for tile in given.tiles.tolist() if tile[0] >= 0] == [[1, 0], [1, 8], [1, 16], [2, 0]]


def test_a_shape_has_room_for_the_tiles_of_any_plan() -> None:
    rng = np.random.default_rng(seed := 5)
    print(f"seed {seed}")
    for _ in range(200):
        seats, tokens = int(rng.integers(1, 40)), int(rng.choice([64, 128, 384]))
        shape = Shape.of(seats, tokens, 64)
        counts = rng.integers(1, 120, min(seats, tokens // 8))
        while counts.sum() > tokens:
            counts = counts[:-1] if len(counts) > 1 else counts // 2
        rows = np.arange(len(counts))
        plan = Plan(1, rows, 0 * rows, counts, 0 * rows + 1, (), (), NO_BLOCKS, seats=seats)
        given = Given.cut(packed(plan, shape, 64, empty_slot=99), shape)
        assert (given.tiles[:, 0] >= 0).sum() == (-(-counts[counts > 1] // 64)).sum()


def test_sizes() -> None:
    assert mixed_seats_of(5) == [5]
    assert mixed_seats_of(64) == [8, 64]
    assert mixed_seats_of(700) == [8, 64, 256, 512, 700]
    assert tokens_of(7) == [7]
    assert tokens_of(2048)[-3:] == [1024, 1536, 2048]
    assert tokens_of(2300)[-2:] == [2048, 2300]
    assert tokens_of(1 << 20)[-1] == 8192


def test_kernels_give_the_same_tokens() -> None:
    """Through Triton's interpreter, with everything of a step that has a kernel."""
    pytest.importorskip("triton", reason="Triton is not installed: it comes for Linux on x86-64 alone")
    if torch.cuda.is_available():
        pytest.skip("tests/runner/test_graphs_gpu.py runs them there")
    from ridgeline.ops.paged import triton_ops
    from ridgeline.ops.turns_triton import KernelTurns

    runner = graphed(attention=Paged(triton_ops()))
    turns = KernelTurns(runner._tables, dependent=False)
    runner.graphs._steps._turns = runner.graphs._mixed._turns = turns  # type: ignore[attr-defined]
    ready(runner)
    assert decode(runner, PROMPTS[:4], 6, PLAIN[:4], Way(chunk=6)) == [made[:6] for made in MADE[:4]]
