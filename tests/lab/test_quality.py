"""Quality: perplexity and agreement of engines that read the shipped text, against transformers' own numbers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2LMHeadModel

from ridgeline.build import EngineOrder, make_engine
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.engine.engine import Engine
from ridgeline.hub import Access, choose
from ridgeline.lab.ladder.quality import Reading, compare, gap, judge, read, text_ids
from tests.tiny_gpt2 import write_tiny_gpt2

BASE: dict[str, Any] = {"device": "cpu", "dtype": "float32", "kv_memory": "32MiB", "max_num_seqs": 8}


def ordered(**options: Any) -> EngineOrder:
    config = Config.of(**(BASE | options))
    found = choose(config.model, Access())
    return EngineOrder(config, found.name, found.weights)


def engine(**options: Any) -> Engine:
    return make_engine(ordered(**options), lambda *_: None)[0]


def quiet(_what: str, _done: int, _whole: int) -> None:
    """No progress shown."""


@pytest.fixture(scope="module")
def theirs() -> GPT2LMHeadModel:
    weights = ordered(model="demo").weights
    return GPT2LMHeadModel.from_pretrained(weights, dtype=torch.float32).eval()


@torch.inference_mode()
def table(model: GPT2LMHeadModel, ids: list[int]) -> torch.Tensor:
    """Log-probabilities [tokens, vocab] of what follows each token."""
    return torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)


def test_the_text_is_one_that_the_demo_was_not_trained_on() -> None:
    ids = text_ids(ordered(model="demo"), 10**9)
    assert 5_000 < len(ids) < 20_000
    assert text_ids(ordered(model="demo"), 100) == ids[:100]
    found = read(engine(model="demo"), ids[:2048], 512, quiet)
    # The loss on all held-out documents is 3.23 nats a token (records/2026-11-23-train-demo).
    assert 2.8 < math.log(found.perplexity) < 4.2


@pytest.mark.parametrize("options", [{}, {"kv_cache": "none", "max_num_batched_tokens": 64}, {"batching": "dynamic"}])
def test_perplexity_is_that_of_the_models_own_logits(options: dict[str, Any], theirs: GPT2LMHeadModel) -> None:
    ids, window = text_ids(ordered(model="demo"), 101), 50
    shown: list[tuple[int, int]] = []
    found = read(
        engine(model="demo", max_model_len=64, batch_window_ms=1.0, **options), ids, window,
        lambda _what, done, whole: shown.append((done, whole)),
    )  # fmt: skip
    losses, best = [], []
    for piece in (ids[:50], ids[50:100]):  # the last window would be a single token, which nothing comes before
        odds = table(theirs, piece)[:-1]
        losses.append(-odds[torch.arange(len(piece) - 1), torch.tensor(piece[1:])])
        best.append(odds.argmax(-1))
    assert found.perplexity == pytest.approx(float(torch.cat(losses).mean().exp()), rel=1e-4)
    assert found.best.tolist() == torch.cat(best).tolist()
    assert shown == [(0, 2), (1, 2), (2, 2)]


def test_a_rounded_model_beside_the_exact_one() -> None:
    ids = text_ids(ordered(model="demo"), 512)
    exact = engine(model="demo", max_model_len=257)
    same = judge(exact, engine(model="demo", max_model_len=257, packing="padded"), ids, 256, quiet)
    assert same.agreement == 1.0
    assert same.perplexity == pytest.approx(same.reference_perplexity, rel=1e-5)
    assert same.positions == 510
    rounded = judge(exact, engine(model="demo", max_model_len=257, dtype="float16"), ids, 256, quiet)
    assert rounded.agreement > 0.95
    assert rounded.perplexity == pytest.approx(rounded.reference_perplexity, rel=0.01)
    assert rounded.perplexity != rounded.reference_perplexity


def test_a_model_that_holds_the_text_for_impossible() -> None:
    sure, lost = Reading(*_arrays([0.0, 0.0], [1, 2])), Reading(*_arrays([0.0, math.inf], [1, 3]))
    found = compare(sure, lost)
    assert (found.perplexity, found.reference_perplexity, found.agreement) == (math.inf, 1.0, 0.5)
    assert Reading(*_arrays([800.0], [1])).perplexity == math.inf


def _arrays(losses: list[float], best: list[int]) -> tuple[Any, Any]:
    return torch.tensor(losses).numpy(), torch.tensor(best).numpy()


def test_the_gap_of_two_candidates(theirs: GPT2LMHeadModel) -> None:
    ids = text_ids(ordered(model="demo"), 40)
    odds = table(theirs, ids)[-1]
    a, b = odds.topk(2).indices.tolist()
    # As long as it may be: one more token fills the engine.
    tight = engine(model="demo", max_model_len=41)
    assert gap(tight, ids, a, b) == pytest.approx(float(odds[a] - odds[b]), abs=1e-4)
    rare = int(odds.argmin())
    assert gap(tight, ids, rare, a) == pytest.approx(float(odds[a] - odds[rare]), abs=1e-3)
    assert gap(tight, ids, a, a) == 0.0


def test_what_cannot_be_judged_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"random weights say nothing.*--model demo"):
        text_ids(ordered(random_weights="gpt2"), 100)
    bare = write_tiny_gpt2(tmp_path / "bare")
    order = ordered(model=str(bare))
    (bare / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="no tokenizer to read a text with"):
        text_ids(order, 100)
    small = engine(model="demo", max_model_len=64)
    with pytest.raises(ConfigError, match=r"window of 64 tokens does not fit.*64.*take a shorter one"):
        read(small, [5] * 100, 64, quiet)
    with pytest.raises(ConfigError, match="nothing to predict"):
        read(small, [5], 64, quiet)
    assert small.counters().running == small.counters().waiting == 0


def test_a_tokenizer_that_loses_text_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "tiny")
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"normalizer": null', '"normalizer": {"type": "Lowercase"}'))
    with pytest.raises(ConfigError, match="gives back another text"):
        text_ids(ordered(model=str(folder)), 100)


def test_an_engine_is_idle_again_after_an_interrupt() -> None:
    used = engine(model="demo", max_model_len=64)

    def interrupt(_what: str, done: int, _whole: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    ids = text_ids(ordered(model="demo"), 150)
    with pytest.raises(KeyboardInterrupt):
        read(used, ids, 50, interrupt)
    again = read(used, ids, 50, quiet)
    fresh = read(engine(model="demo", max_model_len=64), ids, 50, quiet)
    assert dataclasses.astuple(compare(again, fresh))[2:] == (1.0, 147)
