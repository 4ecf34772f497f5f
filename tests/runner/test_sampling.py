"""Sampling through the runner: a request's tokens depend on its seed and on nothing that happens around it."""

from __future__ import annotations

import numpy as np

from ridgeline.core.types import Sampling
from ridgeline.runner.inputs import Padded, Ragged
from tests.tensors import TINY, Driver, Way, decode, lively, make_runner, random_prompts

MODEL = lively(TINY, seed=6)
PROMPTS = random_prompts(np.random.default_rng(3), 8, 20, TINY.vocab)
ASKED = [
    Sampling(temperature=0.8, seed=1),
    Sampling(temperature=1.5, top_k=5, seed=2),
    Sampling(),
    Sampling(temperature=1.0, top_p=0.7, seed=2**64 - 1),
    Sampling(temperature=0.6, top_k=20, top_p=0.9, seed=0),
    Sampling(temperature=1.0, seed=1),
    Sampling(temperature=2.0, min_tokens=10, stop_ids=(1, 2, 3), seed=9),
    Sampling(temperature=1e-6, seed=4),
]
SOLO = [decode(make_runner(MODEL), [p], 16, [s])[0] for p, s in zip(PROMPTS, ASKED, strict=True)]


def test_the_batch_packing_and_chunks_do_not_matter() -> None:
    for packing in (Ragged(), Padded()):
        for chunk in (1 << 30, 4):
            assert decode(make_runner(MODEL, packing), PROMPTS, 16, ASKED, Way(chunk=chunk)) == SOLO
    order = [5, 2, 7, 0, 3, 1, 6, 4]
    moved = decode(make_runner(MODEL), [PROMPTS[i] for i in order], 16, [ASKED[i] for i in order])
    assert moved == [SOLO[i] for i in order]


def test_a_resumed_request_goes_on_as_it_would_have() -> None:
    driver = Driver(make_runner(MODEL))
    driver.join(3, PROMPTS[0], len(PROMPTS[0]) + 16, ASKED[0], output=SOLO[0][:7])
    while len(driver.known[3]) < len(PROMPTS[0]) + 16:
        driver.step(driver.work())
    assert driver.known[3][len(PROMPTS[0]) :] == SOLO[0]


def test_the_seed_matters_and_the_temperature_does() -> None:
    greedy, other = (
        decode(make_runner(MODEL), PROMPTS[:1], 16, [sampling])[0]
        for sampling in (Sampling(), Sampling(temperature=0.8, seed=77))
    )
    assert SOLO[0] != other
    assert SOLO[0] != greedy
    cold = decode(make_runner(MODEL), PROMPTS[7:], 16, [Sampling()])[0]
    assert SOLO[7] == cold


def test_min_tokens_hold_for_sampled_rows() -> None:
    assert {1, 2, 3}.isdisjoint(SOLO[6][:10])
