"""Several iterations a launch, and several launches in flight: the tokens are those of one step at a time."""

from __future__ import annotations

import pytest

from ridgeline.core.types import Sampling
from ridgeline.runner.inputs import Packing, Padded, Ragged
from tests.runner.asked import ASKED, FREE, MODEL, NEW, PROMPTS, SOLO, WAYS
from tests.tensors import Driver, Way, decode, make_runner

each_packing = pytest.mark.parametrize("packing", [Ragged(), Padded()], ids=lambda p: type(p).__name__)


def test_the_requests_differ_in_their_ends() -> None:
    assert sorted(map(len, SOLO))[0] < 6
    assert max(map(len, SOLO)) == NEW


@each_packing
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_any_way_gives_the_same_tokens(packing: Packing, way: Way) -> None:
    assert decode(make_runner(MODEL, packing), PROMPTS, NEW, ASKED, way) == SOLO


def test_the_place_in_the_batch_does_not_matter() -> None:
    order = [5, 2, 7, 0, 3, 1, 6, 4]
    moved = decode(make_runner(MODEL), [PROMPTS[i] for i in order], NEW, [ASKED[i] for i in order], Way(horizon=4))
    assert moved == [SOLO[i] for i in order]


@each_packing
def test_a_stop_in_the_middle_of_a_horizon_ends_the_row_there(packing: Packing) -> None:
    driver = Driver(make_runner(MODEL, packing))
    for slot in (0, 1):
        driver.join(slot, PROMPTS[slot], len(PROMPTS[slot]) + (NEW, 3)[slot], ASKED[slot])
    output = driver.step(driver.work(), horizon=8)
    assert output.counts.tolist() == [len(SOLO[0]), 3]
    assert output.tokens[0, : len(SOLO[0])].tolist() == SOLO[0]
    assert output.finished.tolist() == [True, False]
    assert output.padding >= 8 - len(SOLO[0]), "what a row computes after its end is of no use"


def test_launches_made_before_an_end_was_known_give_nothing_more() -> None:
    driver = Driver(make_runner(MODEL))
    driver.join(0, PROMPTS[0], len(PROMPTS[0]) + NEW, ASKED[0])
    flights = [driver.launch(driver.work(), horizon=4) for _ in range(3)]
    outputs = [driver.collect(flight) for flight in flights]
    counts = [int(output.counts[0]) for output in outputs]
    useful = sum(output.positions - output.padding for output in outputs)
    assert useful == len(PROMPTS[0]) + len(SOLO[0]) - 1, "what comes after the end is padding, in later launches too"
    assert sum(counts) == len(SOLO[0])
    assert counts[-1] == 0
    assert driver.known[0][len(PROMPTS[0]) :] == SOLO[0]


@pytest.mark.parametrize("request_index", range(len(ASKED)))
def test_a_request_that_comes_back_goes_on_as_it_would_have(request_index: int) -> None:
    """Penalties, biases and the seed see prompt and output apart, whether a token was made here or brought along."""
    prompt, asked, solo = PROMPTS[request_index], ASKED[request_index], SOLO[request_index]
    driver = Driver(make_runner(MODEL))
    many = tuple((token, 50.0) for token in range(60, 70))
    driver.join(3, PROMPTS[0], 40, Sampling(temperature=1.0, frequency_penalty=2.0, logit_bias=many))
    driver.step(driver.work(), horizon=4)
    driver.leave(3)  # what it asked for must not stay in the slot
    driver.join(3, prompt, len(prompt) + NEW, asked, output=solo[:2])
    while len(driver.known[3]) < len(prompt) + len(solo):
        driver.step({3: min(5, driver.work()[3])})
    assert driver.known[3][len(prompt) :] == solo


def test_penalties_and_biases_do_what_they_are_for() -> None:
    assert max(map(FREE[3].count, FREE[3])) < max(map(FREE[6].count, FREE[6])) + 3
    assert 6 not in FREE[2]
    biased = [Sampling(logit_bias=((40, 100.0),)), Sampling(logit_bias=((40, 100.0),), temperature=1.0)]
    assert decode(make_runner(MODEL), PROMPTS[:2], 5, biased) == [[40] * 5] * 2
    # As often as it comes it loses 2, so in the end something else does.
    biased = [Sampling(logit_bias=((40, 30.0),), frequency_penalty=2.0, seed=1)]
    made = decode(make_runner(MODEL), PROMPTS[:1], NEW, biased)[0]
    assert made[0] == 40
    assert set(made) != {40}
    once = Sampling(logit_bias=((40, 100.0),), stop_ids=(40,), min_tokens=3)
    assert [t == 40 for t in decode(make_runner(MODEL), PROMPTS[:1], NEW, [once])[0]] == [False] * 3 + [True]
