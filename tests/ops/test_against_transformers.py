"""What changes and cuts logits, against the processors of Hugging Face transformers and the formulas of OpenAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ridgeline.ops.penalty import penalize
from ridgeline.ops.philox import uniforms
from ridgeline.ops.sample import sample

VOCAB = 61


def histories(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens [rows, 40], lengths and prompts [rows]."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCAB, (rows, 40), generator=generator, dtype=torch.int32)
    lengths = torch.randint(2, 41, (rows,), generator=generator)
    return tokens, lengths, torch.randint(0, 40, (rows,), generator=generator).remainder(lengths) + 1


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 10.0])
def test_repetition_penalty(penalty: float) -> None:
    tokens, lengths, prompts = histories(6, seed=1)
    logits = torch.randn(6, VOCAB, generator=torch.Generator().manual_seed(2)) * 4
    zero = torch.zeros(6, dtype=torch.float64)
    found = penalize(logits, tokens, lengths, prompts, zero + penalty, zero, zero)
    for row in range(6):
        theirs = RepetitionPenaltyLogitsProcessor(penalty)
        expected = theirs(tokens[row : row + 1, : lengths[row]].long(), logits[row : row + 1].clone())
        assert torch.equal(found[row : row + 1], expected)


@pytest.mark.parametrize(("presence", "frequency"), [(0.0, 0.0), (0.7, 0.0), (0.0, -1.1), (-2.0, 2.0)])
def test_presence_and_frequency_follow_the_formula(presence: float, frequency: float) -> None:
    """mu[j] -> mu[j] - c[j] * frequency - float(c[j] > 0) * presence, c counting the output alone."""
    tokens, lengths, prompts = histories(6, seed=3)
    logits = torch.randn(6, VOCAB, generator=torch.Generator().manual_seed(4)) * 4
    zero = torch.zeros(6, dtype=torch.float64)
    found = penalize(logits, tokens, lengths, prompts, zero + 1, zero + presence, zero + frequency)
    for row in range(6):
        c = np.bincount(tokens[row, prompts[row] : lengths[row]].numpy(), minlength=VOCAB)
        expected = logits[row].double().numpy() - c * frequency - (c > 0) * presence
        np.testing.assert_allclose(found[row].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [(1.0, 0, 1.0, 0.2), (0.7, 12, 1.0, 0.0), (1.4, 0, 0.8, 0.0), (1.1, 20, 0.9, 0.05), (2.0, 0, 0.95, 0.3)],
)
def test_what_may_be_drawn_and_how_often(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    logits, count = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(5)) * 2, 20_000
    theirs = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    theirs += [TopKLogitsWarper(top_k)] if top_k else []
    theirs += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    theirs += [MinPLogitsWarper(min_p)] if min_p else []
    expected = torch.softmax(theirs(torch.zeros(1, 1, dtype=torch.int64), logits.clone())[0], -1)
    one = torch.ones(count, dtype=torch.float64)
    at = uniforms(torch.tensor([6]), torch.arange(count))
    drawn = sample(logits.expand(count, -1), one * temperature, at, (one * top_k).long(), one * top_p, one * min_p)
    seen = torch.bincount(drawn, minlength=VOCAB) / count
    assert seen[expected == 0].sum() == 0
    assert (seen - expected).abs().max() < 0.02
