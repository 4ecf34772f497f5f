"""Graphs where there are some: on a GPU they give the tokens of packed steps, and the host waits for nothing."""

from __future__ import annotations

import pytest
import torch

from ridgeline.attention.paged import Paged
from ridgeline.device.choose import choose
from ridgeline.runner.graphs import Graphs, NoGraphs
from ridgeline.runner.launched import Replayed
from ridgeline.runner.runner import Runner
from tests.runner.asked import NEW, PROMPTS
from tests.runner.test_graphs import PLAIN
from tests.tensors import TINY, Driver, Way, decode, lively, make_runner

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
