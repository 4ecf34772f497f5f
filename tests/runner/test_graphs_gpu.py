"""Graphs where there are some: on a GPU they give the tokens of packed steps, and the host waits for nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ridgeline.attention.paged import Paged
from ridgeline.device.choose import choose
from ridgeline.runner.graphs import Graphs, NoGraphs
from ridgeline.runner.launched import Replayed, ReplayedMixed
from ridgeline.runner.runner import Runner
from tests.runner.asked import ASKED, NEW, PROMPTS
from tests.runner.test_graphs import PLAIN
from tests.tensors import TINY, Driver, Way, decode, decode_scored, lively, make_runner

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def on_gpu(graphs: type[Graphs] | type[NoGraphs]) -> Runner:
    device = choose("cuda", "float32")
    model = lively(TINY, seed=6, device=device)
    return make_runner(model, device=device, attention=Paged(), block_size=16, graphs=graphs)


@pytest.mark.parametrize(
    "way", [Way(), Way(horizon=4), Way(depth=2), Way(chunk=5, horizon=3, depth=3)], ids=str
)  # fmt: skip
def test_any_way_gives_the_tokens_of_packed_steps(way: Way) -> None:
    packed = decode(on_gpu(NoGraphs), PROMPTS, NEW, PLAIN)
    assert decode(on_gpu(Graphs), PROMPTS, NEW, PLAIN, way) == packed


@pytest.mark.parametrize("way", [Way(), Way(chunk=5, depth=3), Way(horizon=4)], ids=str)
def test_requests_that_want_anything_of_the_sampler_have_the_tokens_of_packed_steps(way: Way) -> None:
    packed = decode(on_gpu(NoGraphs), PROMPTS, NEW, ASKED)
    runner = on_gpu(Graphs)
    for _ in range(2):  # at first some steps are captured on the way
        assert decode(runner, PROMPTS, NEW, ASKED, way) == packed


def test_log_probabilities_are_in_captured_steps() -> None:
    asked = [replace(one, logprobs=2) for one in PLAIN]
    packed = decode_scored(on_gpu(NoGraphs), PROMPTS, NEW, asked)
    runner = on_gpu(Graphs)
    for _ in range(2):
        for (tokens, scores), (same, those) in zip(decode_scored(runner, PROMPTS, NEW, asked), packed, strict=True):
            assert tokens == same
            values, expected = (np.concatenate([s.values for s in given]) for given in (scores, those))
            np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-4)


def test_graphs_captured_beforehand_share_their_memory() -> None:
    """All that there are, the largest first; each goes on to work after those that came later."""
    runner = on_gpu(Graphs)
    while runner.idle():
        pass
    packed = decode(on_gpu(NoGraphs), PROMPTS, NEW, PLAIN)
    for rows in (8, 3, 1, 5, 8):
        assert decode(runner, PROMPTS[:rows], NEW, PLAIN[:rows], Way(horizon=3)) == packed[:rows]


def test_a_launch_of_replays_does_not_wait_for_the_device() -> None:
    runner = on_gpu(Graphs)
    while runner.idle():
        pass
    driver = Driver(runner)
    for slot, prompt in enumerate(PROMPTS[:3]):
        driver.join(slot, prompt, 60, PLAIN[1])
    driver.step(driver.work())
    torch.cuda.set_sync_debug_mode("error")
    try:
        flights = [driver.launch(driver.work(), horizon=9) for _ in range(3)]  # with new blocks in some
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(isinstance(flight.launched, Replayed) for flight in flights)
    for flight in flights:
        driver.collect(flight)


def test_launches_with_prompts_do_not_wait_for_the_device_either() -> None:
    runner = on_gpu(Graphs)
    while runner.idle():
        pass
    driver = Driver(runner)
    for slot, prompt in enumerate(PROMPTS[:3]):
        driver.join(slot, prompt + PROMPTS[7] + [1, 2, 3], 60, PLAIN[1])
    driver.step({0: 2, 1: 2, 2: 1})
    torch.cuda.set_sync_debug_mode("error")
    try:
        flights = [driver.launch({0: 1, 1: 2, 2: 3}) for _ in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(isinstance(flight.launched, ReplayedMixed) for flight in flights)
    for flight in flights:
        driver.collect(flight)
