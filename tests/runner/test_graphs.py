"""Replays: the tokens of a captured step are those of a packed one, and the host has nothing to do with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ridgeline.attention.base import AnyAttention
from ridgeline.attention.paged import Paged
from ridgeline.attention.reference import Reference
from ridgeline.core.types import NewRequest, Plan, Sampling
from ridgeline.device.base import Download
from ridgeline.device.cpu import CpuDevice
from ridgeline.engine.engine import Engine, NullSink
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.prefix import HashPrefix, NoPrefix
from ridgeline.runner.graphs import Graphs, seats_of
from ridgeline.runner.inputs import Packing, Padded, Ragged
from ridgeline.runner.launched import Launched, Replayed
from ridgeline.runner.memory import TURNS
from ridgeline.runner.places import ranged, wrap_places
from ridgeline.runner.runner import Runner
from ridgeline.runner.sampler import draw_or_greedy
from ridgeline.runner.slots import Sizes, SlotTables
from ridgeline.scheduler.policies import Continuous
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits
from tests.runner.asked import ASKED, MODEL, NEW, PROMPTS, SOLO, WAYS
from tests.runner.tape import TapingDevice
from tests.tensors import Driver, Flight, Way, cpu, decode, make_runner, random_prompts

# Every second draws, every third meets a token that ends it somewhere in the middle of a horizon.
_OPEN = [Sampling(temperature=n % 2 * 0.9, seed=n) for n in range(len(PROMPTS))]
_FREE = [decode(make_runner(MODEL), [p], NEW, [s])[0] for p, s in zip(PROMPTS, _OPEN, strict=True)]
PLAIN = [
    replace(s, stop_ids=(made[2 + n],)) if n % 3 == 0 else s
    for n, (s, made) in enumerate(zip(_OPEN, _FREE, strict=True))
]
MADE = [decode(make_runner(MODEL), [p], NEW, [s])[0] for p, s in zip(PROMPTS, PLAIN, strict=True)]

each_packing = pytest.mark.parametrize("packing", [Ragged(), Padded()], ids=lambda p: type(p).__name__)
each_device = pytest.mark.parametrize("device", [CpuDevice, TapingDevice], ids=["plain", "taped"])


def device_of(kind: Callable[..., CpuDevice]) -> CpuDevice:
    return kind(torch.float32, threads=1, native_bfloat16=False)


def graphed(packing: Packing | None = None, **more: Any) -> Runner:
    return make_runner(MODEL, packing, graphs=Graphs, **more)


def is_replay(flight: Flight) -> bool:
    return isinstance(flight.launched, Replayed)


def ready(runner: Runner) -> None:
    while runner.idle():
        pass


@each_packing
@each_device
@pytest.mark.parametrize("way", [Way(), *WAYS], ids=str)
def test_any_way_gives_the_same_tokens(packing: Packing, device: Callable[..., CpuDevice], way: Way) -> None:
    assert decode(graphed(packing, device=device_of(device)), PROMPTS, NEW, PLAIN, way) == MADE


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_requests_that_want_more_of_the_sampler_have_it(way: Way) -> None:
    assert decode(graphed(), PROMPTS, NEW, ASKED, way) == SOLO


@each_device
@pytest.mark.parametrize("attention", [Paged, Reference, lambda: Reference(group_tokens=130)])
def test_any_attention_that_plans_on_the_device(
    attention: Callable[[], AnyAttention], device: Callable[..., CpuDevice]
) -> None:
    runner = graphed(attention=attention(), block_size=16, device=device_of(device))
    assert decode(runner, PROMPTS, NEW, PLAIN, Way(horizon=3)) == MADE


@each_packing
@each_device
@pytest.mark.parametrize("sizes", [{}, {"slots": 1, "num_blocks": 2}, {"slots": 5}], ids=str)
def test_a_warm_up_rehearses_what_is_replayed_and_leaves_no_trace(
    packing: Packing, device: Callable[..., CpuDevice], sizes: dict[str, int]
) -> None:
    make_runner(MODEL, packing, graphs=Graphs, block_size=16, **sizes).warm_up()  # type: ignore[arg-type]
    runner = graphed(packing, device=device_of(device))
    runner.warm_up()
    ready(runner)
    assert decode(runner, PROMPTS, NEW, PLAIN, Way(horizon=3)) == MADE


def test_the_first_step_of_a_size_is_packed_and_later_ones_are_replays() -> None:
    driver = Driver(graphed())
    for slot in range(3):
        driver.join(slot, PROMPTS[slot], len(PROMPTS[slot]) + NEW)
    seen = []
    for _ in range(4):
        flight = driver.launch(driver.work())
        seen.append(is_replay(flight))
        driver.collect(flight)
    assert seen == [False, False, True, True], "a prompt, a step that nothing was captured for, and then replays"


def test_a_chunk_of_one_token_makes_none() -> None:
    runner = graphed()
    ready(runner)
    driver = Driver(runner)
    prompt = [7, 8, 9, 10]
    driver.join(0, prompt, len(prompt) + NEW)
    for _ in prompt[1:]:
        flight = driver.launch({0: 1})
        assert not is_replay(flight), "it is not the last of its prompt"
        assert driver.collect(flight).counts.tolist() == [0]
    assert is_replay(driver.launch({0: 1})), "the last one makes a token like any other"


def test_of_equal_logits_a_greedy_row_takes_the_first_also_among_rows_that_draw() -> None:
    tables = SlotTables(Sizes(2, 8, 1, 8), cpu())
    tables.uniforms.fill_(0.9)
    tables.temperature[0] = 1.0
    chosen = draw_or_greedy(tables, torch.zeros(2, 10), torch.tensor([0, 1]))
    assert chosen.tolist() == [9, 0]


def test_a_larger_graph_does_until_the_right_one_is_there() -> None:
    driver = Driver(graphed())
    for slot in range(5):
        driver.join(slot, PROMPTS[slot], len(PROMPTS[slot]) + NEW)
    for _ in range(3):
        driver.step(driver.work())
    for slot in (3, 4):
        driver.leave(slot)
    positions = []
    for _ in range(3):
        flight = driver.launch(driver.work())
        assert is_replay(flight)
        positions.append(driver.collect(flight).positions)
    assert positions == [8, 4, 4]


def test_idle_makes_everything_ready_and_then_has_nothing_to_do() -> None:
    runner = graphed(slots=6)
    ready(runner)
    driver = Driver(runner)
    for slot in range(6):
        driver.join(slot, PROMPTS[slot], len(PROMPTS[slot]) + NEW, PLAIN[slot])
    driver.step(driver.work())
    assert is_replay(driver.launch(driver.work()))


@each_device
def test_a_steady_launch_uploads_nothing_and_downloads_once(device: Callable[..., CpuDevice]) -> None:
    watched = device_of(device)
    traffic: list[str] = []
    upload, download = watched.upload, watched.download

    def seen_upload(arrays: Sequence[Any]) -> list[torch.Tensor]:
        traffic.append("up")
        return upload(arrays)

    def seen_download(tensor: torch.Tensor) -> Download:
        traffic.append("down")
        return download(tensor)

    watched.upload, watched.download = seen_upload, seen_download  # type: ignore[method-assign]
    runner = graphed(Ragged(), device=watched, block_size=64)
    ready(runner)
    driver = Driver(runner)
    for slot in range(4):
        driver.join(slot, PROMPTS[slot], len(PROMPTS[slot]) + NEW, _OPEN[slot])
    driver.step(driver.work())
    driver.step(driver.work())
    traffic.clear()
    driver.step(driver.work(), horizon=4)
    driver.step(driver.work(), horizon=1)
    assert traffic == ["down", "down"]


@each_packing
def test_a_stop_in_the_middle_of_a_horizon_ends_the_row_there(packing: Packing) -> None:
    runner = graphed(packing)
    ready(runner)
    driver = Driver(runner)
    for slot, limit in ((0, NEW), (1, 4)):
        driver.join(slot, PROMPTS[slot], len(PROMPTS[slot]) + limit, PLAIN[slot])
    driver.step(driver.work())
    flight = driver.launch(driver.work(), seats=5, horizon=8)
    output = driver.collect(flight)
    assert is_replay(flight)
    assert output.counts.tolist() == [len(MADE[0]) - 1, 3]
    assert output.tokens[0, : len(MADE[0]) - 1].tolist() == MADE[0][1:]
    assert output.tokens[1, :3].tolist() == MADE[1][1:4]
    assert output.finished.tolist() == [True, False]
    seats = 8 if isinstance(packing, Padded) else 2
    assert output.positions == 8 * seats, "five seats are computed by the graph of eight"
    assert output.positions - output.padding == len(MADE[0]) - 1 + 3


@pytest.mark.parametrize("newcomer", [[5], PROMPTS[5]], ids=["at once", "after its prompt"])
def test_a_slot_is_left_and_taken_while_a_launch_with_its_old_row_is_in_flight(newcomer: list[int]) -> None:
    alone = decode(make_runner(MODEL), [newcomer], NEW, [PLAIN[5]])[0]
    runner = graphed()
    ready(runner)
    driver = Driver(runner)
    for slot in (0, 1):
        driver.join(slot, PROMPTS[slot], len(PROMPTS[slot]) + NEW, PLAIN[slot])
    driver.step(driver.work())
    stops, late = (driver.launch(driver.work(), horizon=len(MADE[0])) for _ in range(2))
    driver.collect(stops)
    assert driver.leave(0)[len(PROMPTS[0]) :] == MADE[0]
    driver.join(0, newcomer, len(newcomer) + NEW, PLAIN[5])
    third = driver.launch(driver.work())
    assert is_replay(late)
    assert is_replay(third) == (len(newcomer) == 1)
    before = len(driver.known[1])
    assert runner.collect(late.launched).counts.tolist() == [0, len(MADE[0])], "the old row has ended"
    driver.known[1] += MADE[1][before - len(PROMPTS[1]) :][: len(MADE[0])]
    driver.collect(third)
    while work := driver.work():
        driver.step(work, horizon=3)
    assert driver.known[0][len(newcomer) :] == alone
    assert driver.known[1][len(PROMPTS[1]) :] == MADE[1]


def test_a_row_that_ended_writes_to_no_block_of_another() -> None:
    """At its limit the last position of a row may have no block: it must not write to whoever has block 0."""
    runner = graphed(block_size=4, num_blocks=8, slots=2)
    ready(runner)
    driver = Driver(runner)
    driver.free = [1, 2, 3, 4, 0, 5, 6, 7]
    driver.join(0, [3, 4, 5], 5)  # its fifth token has no place in its block
    driver.join(1, PROMPTS[0][:3], 16, _OPEN[0])
    driver.step(driver.work())
    for _ in range(3):
        driver.step(driver.work() | {0: 1} if driver.work().get(0) else driver.work(), horizon=4)
    alone = decode(make_runner(MODEL), [PROMPTS[0][:3]], 13, [_OPEN[0]])[0]
    while work := driver.work():
        driver.step(work)
    assert driver.known[1][3:] == alone


def test_an_interrupt_between_replays_leaves_nothing_behind() -> None:
    runner = graphed()
    ready(runner)
    driver = Driver(runner)
    driver.join(0, PROMPTS[1], len(PROMPTS[1]) + NEW, PLAIN[1])
    driver.step(driver.work())
    graphs, calls = runner.graphs._graphs, []  # type: ignore[attr-defined]
    held = dict(graphs)

    def interrupted(replay: Callable[[], None]) -> None:
        replay()
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    for key, replay in held.items():
        graphs[key] = lambda replay=replay: interrupted(replay)
    with pytest.raises(KeyboardInterrupt):
        driver.launch(driver.work(), horizon=4)
    graphs.update(held)
    driver = Driver(runner)  # as after discard: everybody has left
    driver.leaves = [0]
    driver.join(0, PROMPTS[2], len(PROMPTS[2]) + NEW, PLAIN[2])
    driver.step(driver.work())
    while work := driver.work():
        flight = driver.launch(work, horizon=3)
        assert is_replay(flight)
        driver.collect(flight)
    assert driver.known[0][len(PROMPTS[2]) :] == MADE[2]


def test_results_find_room_however_many_launches_there_were() -> None:
    """More turns than the buffer has, in launches that do not divide it."""
    runner = graphed()
    ready(runner)
    for horizon in (TURNS, 7, TURNS - 1, 1):
        assert decode(runner, PROMPTS[:3], NEW, PLAIN[:3], Way(horizon=horizon)) == MADE[:3]


def test_while_somebody_looks_no_step_is_a_replay() -> None:
    class Heard:
        def range(self, name: str) -> AbstractContextManager[None]:
            names.append(name)
            return nullcontext()

    names: list[str] = []
    runner = graphed(device=device_of(TapingDevice))
    ready(runner)
    undo = wrap_places(runner, ranged(Heard()))
    assert decode(runner, PROMPTS[:2], NEW, PLAIN[:2]) == MADE[:2]
    assert names.count("embedding") >= NEW, "every step was seen"
    undo()
    names.clear()
    assert decode(runner, PROMPTS[:2], NEW, PLAIN[:2]) == MADE[:2]
    assert names == []
    driver = Driver(runner)
    driver.join(0, PROMPTS[0], 40)
    driver.step(driver.work())
    assert is_replay(driver.launch(driver.work()))


SLOTS = 5


def engine(depth: int, horizon: int, num_blocks: int, budget: int, block: int, prefix: bool) -> Engine:
    max_len = MODEL.spec.max_positions
    index = HashPrefix() if prefix else NoPrefix()
    ledger = Ledger(slots=SLOTS, max_len=max_len, num_blocks=num_blocks, block_size=block, prefix=index)
    limits = SchedulerLimits(SLOTS, max_len, budget, horizon=horizon)
    attention: AnyAttention = Paged() if block == 16 else Reference()
    device = device_of(TapingDevice)
    runner = make_runner(
        MODEL, slots=SLOTS, block_size=block, num_blocks=num_blocks, graphs=Graphs, attention=attention, device=device
    )
    scheduler = Scheduler(Continuous(), ledger, limits)
    return Engine(scheduler, runner, lambda: 0, NullSink(), depth, upkeep=runner)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize(
    ("num_blocks", "budget", "block", "prefix"),
    [(80, 200, 4, True), (14, 200, 4, False), (14, 7, 4, True), (5, 200, 16, True)],
)
def test_with_the_scheduler(depth: int, horizon: int, num_blocks: int, budget: int, block: int, prefix: bool) -> None:
    """Requests join while others run, give way where there is no room, and find blocks of each other."""
    seed = depth + 10 * horizon + num_blocks + prefix
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    stem = random_prompts(rng, 1, 20, MODEL.spec.vocab)[0] * 20
    prompts = [
        (stem[: rng.integers(0, 20)] + prompt)[: rng.choice([1, 20, 30])]
        for prompt in random_prompts(rng, 12, 12, MODEL.spec.vocab)
    ]
    prompts += prompts[:4]
    asked = [
        Sampling(temperature=rng.choice([0, 1]), seed=key, stop_ids=tuple(rng.integers(0, 97, rng.choice([0, 2]))))
        for key in range(len(prompts))
    ]
    news = [int(new) for new in rng.integers(1, 30, len(prompts))]
    alone = [
        decode(make_runner(MODEL), [p], new, [s])[0] for p, new, s in zip(prompts, news, asked, strict=True)
    ]  # fmt: skip
    running = engine(depth, horizon, num_blocks, budget, block, prefix)
    launched = watched(running)
    tokens: list[list[int]] = [[] for _ in prompts]
    waiting, ended = deque(range(len(prompts))), 0
    while ended < len(prompts):
        for _ in range(min(len(waiting), int(rng.integers(0, 4)))):
            key = waiting.popleft()
            running.submit(NewRequest(key, np.array(prompts[key], np.int32), news[key], asked[key], 0))
        events = running.step()
        if events is None:
            continue
        parts = np.split(events.tokens, events.counts.cumsum())[:-1]
        for key, part in zip(events.keys.tolist(), parts, strict=True):
            tokens[key] += part.tolist()
        ended += len(events.ends)
        running.scheduler.check()
    assert tokens == alone
    assert running.scheduler.preemptions or num_blocks == 80 or block == 16
    replays = [isinstance(one, Replayed) for one in launched]
    assert sum(replays) > len(replays) // 4
    assert not all(replays)


def watched(running: Engine) -> list[Launched]:
    """What the runner launches from now on."""
    runner, launched = running.runner, list[Launched]()
    launch = runner.launch

    def seen(plan: Plan) -> Launched:
        launched.append(launch(plan))
        return launched[-1]

    runner.launch = seen  # type: ignore[method-assign]
    return launched


def test_sizes() -> None:
    assert seats_of(1) == [1]
    assert seats_of(20) == [1, 2, 4, 8, 16, 20]
    assert seats_of(256)[-3:] == [128, 192, 256]
    assert seats_of(700)[-5:] == [256, 384, 512, 640, 700]


def test_kernels_at_both_ends_of_a_step_give_the_same_tokens() -> None:
    pytest.importorskip("triton", reason="Triton is not installed: it comes for Linux on x86-64 alone")
    if torch.cuda.is_available():
        pytest.skip("tests/runner/test_graphs_gpu.py runs them there")
    from ridgeline.ops.turns_triton import KernelTurns

    runner = graphed()
    runner.graphs._steps._turns = KernelTurns(runner._tables, dependent=False)  # type: ignore[attr-defined]
    assert decode(runner, PROMPTS, NEW, PLAIN, Way(horizon=3, depth=2)) == MADE
