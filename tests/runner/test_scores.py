"""Log-probabilities of output and prompt, whatever the launches that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from ridgeline.core.logprobs import LogprobCollector, TokenLogprob
from ridgeline.core.types import Sampling, Scores
from ridgeline.runner.inputs import Packing, Padded, Ragged
from ridgeline.runner.memory import SCORE_ROWS
from tests.runner.asked import ASKED, MODEL, NEW, PROMPTS, SOLO, WAYS
from tests.tensors import TINY, Driver, Way, all_logits, decode, decode_scored, make_runner

# (logprobs, prompt_logprobs) of each request
WANTED: list[tuple[int | None, int | None]] = [
    (2, None), (None, None), (0, 0), (5, 3), (None, 4), (20, 20), (1, None), (3, 0),
]  # fmt: skip
SCORED = [
    replace(asked, logprobs=output, prompt_logprobs=prompt)
    for asked, (output, prompt) in zip(ASKED, WANTED, strict=True)
]


def same(found: Sequence[TokenLogprob], table: torch.Tensor, tokens: Sequence[int], most: int) -> None:
    """table: [tokens, vocab], the log-probabilities before each token."""
    assert [f.token_id for f in found] == list(tokens)
    for position, (one, row) in enumerate(zip(found, table, strict=True)):
        assert one.logprob == pytest.approx(float(row[one.token_id]), abs=1e-4), position
        assert [value for _, value in one.top] == pytest.approx(row.topk(most).values.tolist(), abs=1e-4)
        assert [float(row[token]) for token, _ in one.top] == pytest.approx([v for _, v in one.top], abs=1e-4)
        assert len({token for token, _ in one.top}) == most
        assert dict(one.top).get(one.token_id, one.logprob) == one.logprob, "one number for one token"


def check(request: int, made: list[int], scores: Sequence[Scores]) -> None:
    prompt, (most, most_prompt) = PROMPTS[request], WANTED[request]
    collector = LogprobCollector(most, most_prompt)
    for part in scores:
        collector.add(part)
    table = torch.log_softmax(all_logits(MODEL, prompt + made), -1)
    ends = len(prompt) - 1
    if most is None:
        assert collector.output == []
    else:
        same(collector.output, table[ends:-1], made, most)
    if most_prompt is None:
        assert collector.prompt == []
    else:
        same(collector.prompt, table[:ends], prompt[1:], most_prompt)


@pytest.mark.parametrize("packing", [Ragged(), Padded()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("way", [Way(), *WAYS], ids=str)
def test_scores_are_those_of_the_model(packing: Packing, way: Way) -> None:
    found = decode_scored(make_runner(MODEL, packing), PROMPTS, NEW, SCORED, way)
    assert [made for made, _ in found] == SOLO, "asking changes no token"
    for request, (made, scores) in enumerate(found):
        check(request, made, scores)


def test_more_positions_than_are_scored_at_once() -> None:
    prompts = [[(7 * i + n) % TINY.vocab for i in range(30 + n)] for n in range(6)]
    assert sum(map(len, prompts)) > 2 * SCORE_ROWS
    asked = [Sampling(prompt_logprobs=2)] * len(prompts)
    found = decode_scored(make_runner(MODEL), prompts, 1, asked)
    for prompt, (_, (part,)) in zip(prompts, found, strict=True):
        collector = LogprobCollector(None, 2)
        collector.add(part)
        same(collector.prompt, torch.log_softmax(all_logits(MODEL, prompt), -1)[:-1], prompt[1:], 2)


def test_a_chunk_that_makes_nothing_has_scores_of_its_prompt() -> None:
    driver = Driver(make_runner(MODEL))
    driver.join(1, list(range(10)), 20, Sampling(prompt_logprobs=2, logprobs=0))
    (first,) = driver.step({1: 4}).scores
    assert (first.owner, first.prompt, first.first, first.tokens.tolist()) == (0, True, 1, [1, 2, 3, 4])
    (second,) = driver.step({1: 5}).scores
    assert (second.first, second.tokens.tolist()) == (5, [5, 6, 7, 8, 9])
    (last,) = driver.step({1: 1}).scores  # the prompt's last token predicts the output's first
    assert (last.prompt, last.first, last.tokens.tolist()) == (False, 10, [driver.known[1][10]])
    assert first.top_ids.shape == (4, 2)


def test_a_prompt_computed_again_is_scored_again_and_its_output_is_not() -> None:
    prompt, made = PROMPTS[3], SOLO[3]
    driver = Driver(make_runner(MODEL))
    driver.join(0, prompt, len(prompt) + NEW, SCORED[3], output=made[:4])
    first, then = driver.step(driver.work()).scores
    assert (first.prompt, first.first, first.tokens.tolist()) == (True, 1, prompt[1:])
    assert (then.prompt, then.first, then.tokens.tolist()) == (False, len(prompt) + 4, [made[4]])


def test_a_prompt_computed_at_every_step_is_scored_once() -> None:
    """Without a cache a row starts anew each time."""
    driver = Driver(make_runner(MODEL))
    driver.join(0, list(range(10)), 20, Sampling(prompt_logprobs=0))
    tokens = []
    for count in (4, 8, 10, 11):
        driver.computed[0] = 0
        tokens += [part.tokens.tolist() for part in driver.step({0: count}).scores]
    assert tokens == [[1, 2, 3, 4], [5, 6, 7, 8], [9]]


def test_a_prompt_of_one_token_has_nothing_to_score() -> None:
    driver = Driver(make_runner(MODEL))
    driver.join(0, [5], 9, Sampling(prompt_logprobs=1))
    assert driver.step({0: 1}).scores == ()


def test_more_likeliest_tokens_than_the_vocabulary_has() -> None:
    asked = [Sampling(logprobs=TINY.vocab + 9)]
    ((_, (part, *_)),) = decode_scored(make_runner(MODEL), PROMPTS[:1], 2, asked)
    assert part.top_ids.shape == (1, TINY.vocab)


def test_nobody_asks_nobody_gets() -> None:
    assert all(not scores for _, scores in decode_scored(make_runner(MODEL), PROMPTS, NEW, ASKED))
    assert decode(make_runner(MODEL), PROMPTS, NEW, SCORED) == SOLO
