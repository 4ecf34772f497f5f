"""Sampling: the right distribution, the right candidates, and nothing that depends on the rows beside."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ridgeline.ops.philox import uniforms
from ridgeline.ops.sample import forbid, greedy, greedy_in_pieces, sample, sample_cut


def draw(
    logits: torch.Tensor, count: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
    min_p: float = 0.0, seed: int = 1,
) -> torch.Tensor:  # fmt: skip
    """Many tokens from one row of logits."""
    every = torch.ones(count, dtype=torch.float64)
    return sample(
        logits.expand(count, -1), every * temperature, uniforms(torch.tensor([seed]), torch.arange(count)),
        (every * top_k).to(torch.int64), every * top_p, every * min_p,
    )  # fmt: skip


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_follow_the_softmax(temperature: float) -> None:
    logits, count = torch.randn(20, generator=torch.Generator().manual_seed(3)), 10_000
    expected = torch.softmax(logits.to(torch.float64) / temperature, -1) * count
    seen = torch.bincount(draw(logits, count, temperature=temperature), minlength=20)
    common = expected > 5
    chi_square = float(((seen - expected)[common] ** 2 / expected[common]).sum())
    assert chi_square < 43.8, chi_square  # 19 degrees of freedom at most: once in 1000 seeds, and this one is fixed


def test_the_inverse_distribution_goes_by_token_id() -> None:
    logits = torch.log(torch.tensor([0.1, 0.4, 0.0, 0.3, 0.2]))
    one = torch.ones(6, dtype=torch.float64)
    at = torch.tensor([0.05, 0.099, 0.11, 0.49, 0.51, 0.99], dtype=torch.float64)
    tokens = sample(logits.expand(6, -1), one, at)
    assert tokens.tolist() == [0, 0, 1, 1, 3, 4]


def test_top_k_keeps_the_likeliest_and_their_ties() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, 2.0, 0.0, 2.9])
    assert set(draw(logits, 500, temperature=2.0, top_k=1).tolist()) == {1}
    assert set(draw(logits, 500, temperature=2.0, top_k=2).tolist()) == {1, 5}
    assert set(draw(logits, 500, temperature=2.0, top_k=3).tolist()) == {1, 2, 3, 5}
    assert set(draw(logits, 500, temperature=2.0, top_k=99).tolist()) == set(range(6))


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.log(torch.tensor([0.05, 0.5, 0.15, 0.3]))
    assert set(draw(logits, 500, top_p=1e-6).tolist()) == {1}
    assert set(draw(logits, 500, top_p=0.45).tolist()) == {1}
    assert set(draw(logits, 500, top_p=0.6).tolist()) == {1, 3}
    assert set(draw(logits, 500, top_p=0.9).tolist()) == {1, 2, 3}
    assert set(draw(logits, 500, top_p=0.96).tolist()) == {0, 1, 2, 3}
    # top_k first: of {0.5, 0.3} the first alone has 0.625
    assert set(draw(logits, 500, top_k=2, top_p=0.6).tolist()) == {1}


def test_min_p_keeps_a_share_of_the_likeliest() -> None:
    logits = torch.log(torch.tensor([0.05, 0.5, 0.15, 0.3]))
    assert set(draw(logits, 500, min_p=0.31).tolist()) == {1, 3}
    assert set(draw(logits, 500, min_p=0.29).tolist()) == {1, 2, 3}
    assert set(draw(logits, 500, min_p=1.0).tolist()) == {1}
    assert set(draw(logits, 500, min_p=0.0).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("vocab", [200, 3000])
def test_top_p_looks_at_as_many_as_it_needs(vocab: int) -> None:
    """A flat distribution has a nucleus of nearly everything: more than the first look takes in."""
    kept = set(draw(torch.arange(vocab) * -1e-6, 2_000, top_p=0.9).tolist())
    assert max(kept) < 0.905 * vocab
    assert max(kept) > 0.88 * vocab


def test_a_row_does_not_depend_on_the_batch() -> None:
    generator = torch.Generator().manual_seed(5)
    rows, vocab = 40, 3000
    logits = torch.randn(rows, vocab, generator=generator) * 3
    temperature = torch.rand(rows, generator=generator, dtype=torch.float64) + 0.1
    top_k = torch.randint(0, 60, (rows,), generator=generator) * torch.randint(0, 2, (rows,), generator=generator)
    top_p = torch.where(torch.arange(rows) % 3 == 0, 1.0, torch.rand(rows, generator=generator)).to(torch.float64)
    at = uniforms(torch.tensor([9]), torch.arange(rows))
    together = sample(logits, temperature, at, top_k, top_p)
    for row in range(rows):
        one = slice(row, row + 1)
        assert sample(logits[one], temperature[one], at[one], top_k[one], top_p[one]) == together[row]


def test_extreme_temperatures_and_logits_stay_in_range() -> None:
    logits = torch.tensor([[1e30, -1e30, float("-inf"), 2e30]])
    for temperature in (1e-300, 1e-8, 2.0):
        assert draw(logits[0], 3, temperature=temperature).tolist() == [3, 3, 3]
    broken = draw(torch.full((4,), float("nan")), 3)
    assert ((broken >= 0) & (broken < 4)).all()


def test_greedy_takes_the_lowest_of_equals() -> None:
    assert greedy(torch.tensor([[0.0, 5.0, 5.0], [7.0, 7.0, 7.0]])).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab", [1, 255, 256, 257, 512, 1000, 50257])
def test_greedy_in_pieces_takes_the_same_token(vocab: int, dtype: torch.dtype) -> None:
    """Of logits with many equals, of rows that are alike all over, and of what is no number."""
    drawn = torch.randn(40, vocab, generator=torch.Generator().manual_seed(vocab)) * 3
    rows = [drawn, drawn.round(), torch.zeros(1, vocab), torch.full((1, vocab), -torch.inf), torch.zeros(1, vocab)]
    rows[-1][0, vocab // 2] = torch.nan
    last = torch.full((1, vocab), -1.0)
    last[0, -1] = 0
    logits = torch.cat([*rows, last]).to(dtype)
    assert torch.equal(greedy_in_pieces(logits), greedy(logits))
    assert greedy_in_pieces(logits[:0]).shape == (0,)


def test_forbidden_ids_cannot_be_chosen() -> None:
    logits = torch.tensor([[0.0, 5.0, 4.0], [9.0, 7.0, 7.0]])
    free = forbid(logits, torch.tensor([[1, 2, -1], [0, -1, -1]]))
    assert greedy(free).tolist() == [0, 1]
    assert logits[0, 1] == 5.0  # the caller's logits are as they were


def test_a_sort_of_all_rows_makes_the_cuts_that_are_made_one_by_one() -> None:
    """Every combination of cuts in one batch; values that tie; a nucleus of nothing and of everything."""
    rng = np.random.default_rng(seed := 21)
    print(f"seed {seed}")
    cuts = [
        (top_k, top_p, min_p)
        for top_k in (0, 1, 7, 300, 1000)
        for top_p in (1.0, 0.9, 0.3, 1e-9, 0.0)
        for min_p in (0.0, 0.1, 1.0)
    ]
    logits = torch.from_numpy(np.round(rng.normal(0, 3, (len(cuts), 300)), 1)).to(torch.float32)
    temperature, draws = (torch.from_numpy(rng.uniform(0.01, 1.5, len(cuts))) for _ in range(2))
    top_k, top_p, min_p = (torch.tensor(column) for column in zip(*cuts, strict=True))
    given = logits, temperature, draws / 1.5, top_k, top_p.to(torch.float64), min_p.to(torch.float64)
    assert torch.equal(sample_cut(*given), sample(*given))
