"""The runner with hand-made plans: however a sequence's work is cut and packed, it gives the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from ridgeline.core.errors import BadRequest
from ridgeline.core.types import MAX_STOP_IDS, NO_BLOCKS, NO_TOKENS, Join, Plan, Sampling
from ridgeline.device.cpu import CpuDevice
from ridgeline.runner.inputs import Packing, Padded, Ragged
from tests.tensors import TINY, Driver, Way, all_logits, cpu, decode, lively, make_runner, random_prompts

PACKINGS: list[Packing] = [Ragged(), Padded()]
each_packing = pytest.mark.parametrize("packing", PACKINGS, ids=lambda p: type(p).__name__)

MODEL = lively(TINY, seed=4)
RNG = np.random.default_rng(2)
PROMPTS = random_prompts(RNG, 6, 30, TINY.vocab)
SOLO = [decode(make_runner(MODEL), [prompt], 20)[0] for prompt in PROMPTS]


def naive(prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(all_logits(MODEL, ids)[-1].argmax()))
    return ids[len(prompt) :]


def test_alone_equals_recomputing_everything() -> None:
    assert [naive(prompt, 20) for prompt in PROMPTS] == SOLO
    assert len(set(SOLO[0])) > 5, "a model that repeats itself would hide mistakes"


@each_packing
def test_together_equals_alone(packing: Packing) -> None:
    assert decode(make_runner(MODEL, packing), PROMPTS, 20) == SOLO


@each_packing
@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_prompts_in_chunks_equal_whole_ones(packing: Packing, chunk: int) -> None:
    assert decode(make_runner(MODEL, packing), PROMPTS, 20, way=Way(chunk=chunk)) == SOLO


@each_packing
@pytest.mark.parametrize("block_size", [1, 16, 64])
def test_any_block_size(packing: Packing, block_size: int) -> None:
    assert decode(make_runner(MODEL, packing, block_size=block_size), PROMPTS, 20) == SOLO


@each_packing
def test_slots_and_blocks_are_used_again(packing: Packing) -> None:
    """One slot and blocks for one sequence: each request finds the remains of the one before."""
    driver = Driver(make_runner(MODEL, packing, slots=1, num_blocks=16))
    for prompt, expected in zip(PROMPTS, SOLO, strict=True):
        driver.join(0, prompt, len(prompt) + 20)
        while len(driver.known[0]) < len(prompt) + 20:
            driver.step(driver.work())
        assert driver.leave(0)[len(prompt) :] == expected


@each_packing
def test_joining_in_the_middle_and_coming_back_after_preemption(packing: Packing) -> None:
    driver = Driver(make_runner(MODEL, packing))
    driver.join(0, PROMPTS[0], len(PROMPTS[0]) + 20)
    driver.step(driver.work())
    driver.join(5, PROMPTS[1], len(PROMPTS[1]) + 20)
    driver.step(driver.work())
    driver.step(driver.work())
    so_far = driver.leave(0)
    driver.step(driver.work())
    # It returns to another slot with what it had made: prompt and output are computed again, in chunks.
    driver.join(2, PROMPTS[0], len(PROMPTS[0]) + 20, output=so_far[len(PROMPTS[0]) :])
    driver.step({5: 1, 2: 2})
    while len(driver.known[2]) < len(PROMPTS[0]) + 20:
        driver.step({slot: n for slot, n in driver.work().items() if slot == 2 or (n and len(driver.known[5]) < 40)})
    assert driver.known[2][len(PROMPTS[0]) :] == SOLO[0]
    made = driver.known[5][len(PROMPTS[1]) :]
    assert made == SOLO[1][: len(made)]


def test_padding_is_real_and_counted() -> None:
    for packing, positions, padding in ((Ragged(), 10, 0), (Padded(), 4 * 6, 4 * 6 - 10)):
        driver = Driver(make_runner(MODEL, packing))
        for slot, length in ((0, 3), (1, 6), (2, 1)):
            driver.join(slot, [5] * length, 40)
        output = driver.step({0: 3, 1: 6, 2: 1}, seats=4)
        assert (output.positions, output.padding) == (positions, padding)
        driver.leave(1)
        output = driver.step({0: 1, 2: 1}, seats=4)
        assert (output.positions, output.padding) == ((2, 0) if padding == 0 else (4, 2))


@each_packing
def test_a_late_row_as_long_as_the_longest_prompt(packing: Packing) -> None:
    """One token at position 3 beside a prompt of 4: padded to 4, its row looks like a prompt, and is none."""
    driver = Driver(make_runner(MODEL, packing))
    driver.join(0, PROMPTS[0][:3], 40)
    driver.step({0: 3})
    driver.join(1, PROMPTS[1][:4], 40)
    driver.step({0: 1, 1: 4})
    assert driver.known[0][3:] == naive(PROMPTS[0][:3], 2)


def test_a_chunk_that_is_not_the_last_makes_nothing() -> None:
    driver = Driver(make_runner(MODEL))
    driver.join(0, PROMPTS[0][:1] * 9, 40)
    driver.join(1, PROMPTS[1], len(PROMPTS[1]) + 20)
    alone = driver.step({0: 4})
    assert (alone.counts.tolist(), alone.finished.tolist()) == ([0], [False])
    both = driver.step({0: 2, 1: len(PROMPTS[1])})
    assert both.counts.tolist() == [0, 1]
    assert both.tokens[1, 0] == SOLO[1][0]
    assert both.serial == 1


@each_packing
def test_stop_ids_finish_a_row(packing: Packing) -> None:
    stop = SOLO[0][4]
    first = SOLO[0].index(stop)
    many = tuple({*range(200, 200 + MAX_STOP_IDS - 1), stop})
    asked = [Sampling(stop_ids=many), Sampling()]
    made = decode(make_runner(MODEL, packing), PROMPTS[:2], 20, asked)
    assert made == [SOLO[0][: first + 1], SOLO[1]]
    with pytest.raises(BadRequest, match="at most"):
        Sampling(stop_ids=tuple(range(MAX_STOP_IDS + 1)))


def test_stop_ids_wait_for_min_tokens() -> None:
    stop = SOLO[0][0]
    asked = [Sampling(stop_ids=(stop,), min_tokens=6), Sampling(stop_ids=(999,)), Sampling(min_tokens=5)]
    made = decode(make_runner(MODEL), PROMPTS[:3], 20, asked)
    assert stop not in made[0][:6]
    assert made[1:] == SOLO[1:3]
    # Counted over everything that was put out, so a resumed request does not begin to wait again.
    driver = Driver(make_runner(MODEL))
    driver.join(0, PROMPTS[0], 60, asked[0], output=made[0][:6])
    output = driver.step(driver.work())
    assert output.tokens[0, 0] == naive(PROMPTS[0] + made[0][:6], 1)[0]


def test_a_promise_is_not_exceeded() -> None:
    """Launches that were made before the host knew of an end give nothing more (R3)."""
    runner, prompt = make_runner(MODEL), PROMPTS[0]
    count = len(prompt)
    join = Join(0, np.array(prompt, np.int32), NO_TOKENS, tuple(range(16)), count + 2, Sampling())

    def launch(start: int, n: int, *joins: Join) -> Plan:
        row, starts, counts, one = (np.array([value]) for value in (0, start, n, 1))
        return Plan(start + 1, row, starts, counts, one, joins, (), NO_BLOCKS, seats=1)

    flying = [
        runner.launch(launch(0, count, join)),
        runner.launch(launch(count, 1)),
        runner.launch(launch(count + 1, 1)),
    ]
    outputs = [runner.collect(one) for one in flying]
    assert [out.serial for out in outputs] == [1, count + 1, count + 2]
    assert [int(out.counts[0]) for out in outputs] == [1, 1, 0]
    assert [int(out.tokens[0, 0]) for out in outputs[:2]] == SOLO[0][:2]


def test_found_blocks_are_not_computed_again() -> None:
    """A join may bring blocks that another request computed: here the first two of the same prompt."""
    prompt = (PROMPTS[0] + PROMPTS[1] + PROMPTS[2])[:20]
    runner = make_runner(MODEL)
    driver = Driver(runner)
    driver.join(0, prompt, 40)
    driver.step(driver.work())
    first = driver.known[0][-1]
    join = Join(1, np.array(prompt, np.int32), NO_TOKENS, tuple(driver.blocks[0][:2]), 40, Sampling())
    rest = np.array([1, 1, 1]), np.array([2, 3, 4]), np.array([50, 51, 52])
    row, start, count, one = (np.array([value]) for value in (1, 8, 12, 1))
    output = runner.collect(runner.launch(Plan(9, row, start, count, one, (join,), (), rest, seats=1)))
    assert output.tokens[0, 0] == first


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_run_in_every_packing_alike(dtype: torch.dtype) -> None:
    device = cpu(dtype)
    model = lively(TINY, seed=4, device=device)
    ragged, padded = (decode(make_runner(model, p, device=device), PROMPTS, 12) for p in PACKINGS)
    same = sum(a == b for one, two in zip(ragged, padded, strict=True) for a, b in zip(one, two, strict=True))
    assert same > 0.5 * 6 * 12  # rounding may part them; by chance they would agree in 1 of 97


@each_packing
def test_warm_up_leaves_no_trace(packing: Packing) -> None:
    for sizes in ({}, {"slots": 1, "num_blocks": 1}, {"block_size": 1, "num_blocks": 2}):
        make_runner(MODEL, packing, **sizes).warm_up()  # type: ignore[arg-type]
    runner = make_runner(MODEL, packing)
    runner.warm_up()
    assert decode(runner, PROMPTS, 20) == SOLO


class Compiling(CpuDevice):
    """Makes the calls that a GPU makes for its compilers, beside the body and at once."""

    def __init__(self) -> None:
        super().__init__(torch.float32, threads=1, native_bfloat16=False)
        self.shapes: list[tuple[int, ...]] = []

    @contextmanager
    def compiling_beside(self, calls: Sequence[Callable[[], object]]) -> Iterator[None]:
        with ThreadPoolExecutor(4) as pool:
            made = [pool.submit(torch.inference_mode()(call)) for call in calls]
            yield
        self.shapes = [tuple(one.result().shape) for one in made]  # type: ignore[attr-defined]


@each_packing
def test_products_are_compiled_for_every_small_number_of_rows_beside_the_warm_up(packing: Packing) -> None:
    device = Compiling()
    runner = make_runner(MODEL, packing, device=device)
    runner.warm_up()
    d, inner, vocab = TINY.d_model, TINY.d_inner, TINY.vocab
    quickest, *rest = [
        shape for rows in (1, 2, 4, 8)
        for shape in [(rows, 3 * d), (rows, d), (rows, inner), (rows, d), (rows, vocab), (rows,)]
    ]  # fmt: skip
    assert device.shapes == [quickest, *reversed(rest)], "the slowest begin first, but for the one that is alone"
    assert decode(runner, PROMPTS, 20) == SOLO
