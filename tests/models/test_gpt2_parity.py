"""Our GPT-2 against transformers' GPT2LMHeadModel: the same logits, from checkpoints that transformers wrote."""

from __future__ import annotations

import random
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ridgeline.core.spec import Activation, ModelSpec
from ridgeline.models.gpt2 import GPT2
from ridgeline.models.gpt2_weights import load_gpt2
from tests.tensors import all_logits, cpu, decode, dense, make_runner, random_prompts

ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu": "gelu",
    "relu": "relu",
}


def pair(folder: Path, seed: int, **fields: Any) -> tuple[GPT2LMHeadModel, GPT2]:
    """A random model of theirs and ours, loaded from what theirs saved."""
    torch.manual_seed(seed)
    base: dict[str, Any] = {"vocab_size": 97, "n_positions": 48, "n_embd": 32, "n_layer": 2, "n_head": 4}
    config = GPT2Config(**(base | fields), initializer_range=0.3, bos_token_id=0, eos_token_id=0)
    theirs = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("bias") or ".ln_" in name:  # they start as 0 and 1, which would hide a mistake
                parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    return theirs, load_gpt2(spec_of(config), folder, dense(cpu()), cpu())


def spec_of(config: GPT2Config) -> ModelSpec:
    return ModelSpec(
        layers=config.n_layer, d_model=config.n_embd, heads=config.n_head,
        d_inner=config.n_inner or 4 * config.n_embd, vocab=config.vocab_size, max_positions=config.n_positions,
        norm_eps=config.layer_norm_epsilon, activation=ACTIVATIONS[config.activation_function],
        tied_head=config.tie_word_embeddings, scale_attention=config.scale_attn_weights,
        scale_by_layer=config.scale_attn_by_inverse_layer_idx,
    )  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n_head": 1},
        {"n_layer": 4, "n_head": 8},
        {"n_inner": 50},
        {"activation_function": "gelu"},
        {"activation_function": "relu"},
        {"activation_function": "gelu_pytorch_tanh"},
        {"layer_norm_epsilon": 1e-2},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
        {"tie_word_embeddings": False},
    ],
    ids=str,
)
def test_logits_equal_transformers(fields: dict[str, Any], tmp_path: Path) -> None:
    theirs, ours = pair(tmp_path, seed=1, **fields)
    for length in (1, 2, 5, 48):
        ids = np.random.default_rng(length).integers(0, 97, length).tolist()
        with torch.inference_mode():
            expected = theirs(torch.tensor([ids])).logits[0]
        torch.testing.assert_close(all_logits(ours, ids), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_greedy_tokens_equal_transformers(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    theirs, ours = pair(
        tmp_path, seed, n_head=rng.choice([1, 2, 4]), n_layer=rng.choice([1, 3]), n_inner=rng.choice([None, 24]),
        tie_word_embeddings=rng.choice([True, False]), scale_attn_by_inverse_layer_idx=rng.choice([True, False]),
    )  # fmt: skip
    prompts = random_prompts(np.random.default_rng(seed), 8, 30, 97)
    for prompt, tokens in zip(prompts, decode(make_runner(ours), prompts, 12), strict=True):
        with torch.inference_mode():
            logits = theirs(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        best = logits.topk(2).values
        if (best[:, 0] - best[:, 1] < 1e-4).any():
            continue  # a tie: either is right
        assert tokens == logits.argmax(-1).tolist(), f"seed {seed}, prompt {prompt}"


def test_the_bundled_demo_equals_transformers() -> None:
    demo = files("ridgeline") / "assets" / "demo"
    if not demo.is_dir():
        pytest.skip("the demo model is not in this package")
    with as_file(demo) as folder:
        theirs = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
        ours = load_gpt2(spec_of(theirs.config), folder, dense(cpu()), cpu())
    ids = np.random.default_rng(0).integers(0, theirs.config.vocab_size, 40).tolist()
    with torch.inference_mode():
        expected = theirs(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(all_logits(ours, ids), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_close_to_32(dtype: torch.dtype, tmp_path: Path) -> None:
    _, exact = pair(tmp_path, seed=3)
    device = cpu(dtype)
    rounded = load_gpt2(exact.spec, tmp_path, dense(device), device)
    ids = list(range(40))
    expected, found = all_logits(exact, ids), all_logits(rounded, ids, device)
    error = (found - expected).norm() / expected.norm()
    assert 0 < error < (0.03 if dtype is torch.bfloat16 else 0.004), error


def test_parameters_are_counted_as_transformers_counts(tmp_path: Path) -> None:
    theirs, ours = pair(tmp_path, seed=5, n_inner=50)
    assert ours.spec.parameters == theirs.num_parameters()
    untied = replace(ours.spec, tied_head=False)
    assert untied.parameters == ours.spec.parameters + 97 * 32
