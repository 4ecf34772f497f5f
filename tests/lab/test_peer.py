"""The peer: transformers' generate gives Ridgeline's tokens, from the same weights."""

from __future__ import annotations

import json
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ridgeline.build import EngineOrder, load, make_engine
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.spec import ModelSpec
from ridgeline.core.types import Sampling
from ridgeline.hub import Access, choose
from ridgeline.lab.driving import drive
from ridgeline.lab.ladder import peer
from ridgeline.lab.ladder.peer import Generate, available
from ridgeline.lab.ladder.quality import gap
from ridgeline.models.gpt2_weights import RandomSource
from tests.tensors import all_logits, cpu, lively
from tests.tiny_gpt2 import write_tiny_gpt2

BASE: dict[str, Any] = {"device": "cpu", "dtype": "float32", "kv_memory": "32MiB", "max_num_seqs": 8}
TIE = 1e-4


def ordered(**options: Any) -> EngineOrder:
    config = Config.of(**(BASE | options))
    found = choose(config.model, Access())
    return EngineOrder(config, found.name, found.weights)


def both(order: EngineOrder, lengths: list[int], new: list[int], seed: int = 0) -> tuple[list[list[int]], ...]:
    """(theirs, ours) of random prompts; where the two part at a tie, theirs are cut there and so are ours."""
    loaded = load(order, lambda *_: None)
    engine, info = make_engine(order, lambda *_: None, loaded)
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(0, info.vocab, length).tolist() for length in lengths]
    theirs = Generate(order, loaded).run(prompts, new)
    ours = [made.token_ids for made in drive(engine, prompts, new, Sampling())]
    assert [len(tokens) for tokens in theirs] == [len(tokens) for tokens in ours] == new
    for prompt, a, b in zip(prompts, theirs, ours, strict=True):
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), None)
        if at is not None and gap(engine, prompt + a[:at], a[at], b[at]) < TIE:
            del a[at:], b[at:]
    return theirs, ours


def test_the_same_tokens_on_the_demo() -> None:
    theirs, ours = both(ordered(model="demo"), [1, 5, 40, 17], [24, 1, 12, 30])
    assert theirs == ours


@pytest.mark.parametrize("tied", [True, False])
def test_the_same_tokens_on_a_tiny_model_past_its_end(tied: bool, tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "tiny", seed=4, tied=tied, prefix=not tied)
    order = ordered(model=str(folder))
    theirs, ours = both(order, [3, 20, 9], [30, 30, 30])
    assert theirs == ours
    end = theirs[0][4]  # now the model would end in the middle of the first answer
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": end, "max_length": 7}))
    assert both(order, [3, 20, 9], [30, 30, 30]) == (theirs, ours)


def test_the_same_random_weights() -> None:
    order = ordered(random_weights="distilgpt2", max_model_len=64, seed=5)
    theirs, ours = both(order, [8, 4], [3, 5])
    assert theirs == ours


def test_a_shape_with_everything_unusual() -> None:
    spec = ModelSpec(
        layers=2, d_model=32, heads=4, d_inner=48, vocab=97, max_positions=64, norm_eps=1e-3, activation="relu",
        tied_head=False, scale_attention=False, scale_by_layer=True,
    )  # fmt: skip
    ours, theirs = lively(spec, seed=3), peer._filled(spec, RandomSource(3, cpu()), torch.float32).eval()
    ids = np.random.default_rng(0).integers(0, 97, 40).tolist()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if name.startswith("transformer.h.") and weight.ndim == 2:  # as `lively` does
                weight.mul_(12.0)
        expected = theirs(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(all_logits(ours, ids), expected, atol=1e-4, rtol=1e-4)


def test_why_there_is_no_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available() is None
    order = ordered(model="demo")
    loaded = load(order, lambda *_: None)
    with monkeypatch.context() as patch:
        patch.setattr(util, "find_spec", lambda _name: None)
        assert "pip install" in (available() or "")
        with pytest.raises(ConfigError, match="transformers is not installed; install it with"):
            Generate(order, loaded)
    monkeypatch.setattr(metadata, "version", lambda _name: "4.9.2")
    assert "4.9.2 is too old" in (available() or "")
