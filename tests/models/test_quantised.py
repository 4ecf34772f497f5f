"""Models of integers: results are those of their own dequantised weights, the table is held once, and what cannot work
is refused or said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ridgeline import LLM, SamplingParams
from ridgeline.build import EngineOrder, make_scheme
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.device.cpu import CpuDevice
from ridgeline.device.jit import CPP, CannotBuild, Compiler
from ridgeline.menu import chosen
from ridgeline.models import quantised
from ridgeline.models.linear import LinearSpec
from ridgeline.ops.norm import layer_norm
from ridgeline.ops.quantised import Native, rounded

SCHEMES = {"int8": quantised.Int8, "int4": quantised.Int4}
CHOICES = list(SCHEMES)
CPU = CpuDevice(torch.float32, threads=1)
HEAD = LinearSpec("head", ("vocab",), 48, 50, bias=False)


@pytest.fixture(params=["native", "defined"])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Native | None:
    if request.param == "defined":
        return None
    try:
        Compiler.find(language=CPP)
    except CannotBuild as error:
        pytest.skip(str(error))
    return Native(tmp_path_factory.getbasetemp(), 1)


@pytest.mark.parametrize("name", CHOICES)
def test_a_table_that_is_the_head_too_has_one_set_of_values(name: str, kernels: Native | None) -> None:
    weight = torch.randn(50, 48, generator=torch.Generator().manual_seed(0))
    look_up, multiply = SCHEMES[name](kernels, torch.float32).tied(HEAD, weight)
    rows = look_up(torch.arange(50))  # [50, 48], what the table stands for
    assert (rows - weight).norm() < 0.12 * weight.norm()
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(multiply(x), rounded(x) @ rows.t(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CHOICES)
def test_a_layer_adds_bias_activation_and_residual(name: str, kernels: Native | None) -> None:
    spec = LinearSpec("mlp_in", ("up",), 40, 24, activation="relu")
    weight, bias = torch.randn(24, 40), torch.randn(24)
    layer = SCHEMES[name](kernels, torch.float32).linear(spec, weight, bias)
    x, residual = torch.randn(3, 40), torch.randn(3, 24)
    expected = residual + torch.relu(x @ weight.t() + bias)
    found: Tensor = layer(x, residual=residual)
    assert (found - expected).norm() < 0.15 * expected.norm()
    torch.testing.assert_close(layer(x) + residual, found)


@pytest.mark.parametrize("name", CHOICES)
def test_a_layer_multiplies_what_any_norm_of_its_scheme_gives(name: str, kernels: Native | None) -> None:
    scheme = SCHEMES[name](kernels, torch.float32)
    given = [(torch.randn(40), torch.randn(40), 1e-5) for _ in range(2)]
    own, other = (scheme.norm(*parts) for parts in given)
    weight, bias = torch.randn(24, 40) / 40**0.5, torch.randn(24)
    layer = scheme.linear(LinearSpec("qkv", ("q",), 40, 24, norm=own), weight, bias)
    x = torch.randn(3, 40) * 3 + 1
    for norm, parts in zip((own, other), given, strict=True):
        torch.testing.assert_close(layer(norm(x)), layer(layer_norm(x, *parts)), atol=0.05, rtol=0)


@pytest.mark.parametrize("name", CHOICES)
def test_a_served_model_does_not_depend_on_the_batch(name: str, tmp_path: Path) -> None:
    llm = LLM("demo", cache=tmp_path, quantize=name, device="cpu", dtype="float32")
    prompts = ["Once upon a time", "The sea", "I was", "It was a dark night, and", "He", "When she came in"]
    greedy = SamplingParams(max_tokens=12, temperature=0.0)
    together = [made.token_ids for made in llm.generate(prompts, greedy)]
    alone = [llm.generate([prompt], greedy)[0].token_ids for prompt in prompts]
    assert together == alone
    plain = LLM("demo", device="cpu", dtype="float32")
    assert llm.info.weight_bytes < 0.3 * plain.info.weight_bytes


def test_what_a_plan_counts_is_what_is_held() -> None:
    spec = GPT2_SHAPES["distilgpt2"]
    weight = torch.randn(spec.d_inner, spec.d_model)
    place = LinearSpec("mlp_in", ("up",), spec.d_model, spec.d_inner, bias=False)
    for name in CHOICES:
        scheme = SCHEMES[name]
        layer = scheme(None, torch.float32).linear(place, weight, None)
        assert isinstance(layer, quantised.Defined)
        held = layer._layer.weight.num_bytes
        assert held == pytest.approx(weight.numel() * scheme.bits(CPU) / 8, rel=0.03)


def test_tables_that_are_only_looked_up_keep_eight_bits() -> None:
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(9, 64)).astype(np.float32))
    table[4] = 0
    found = quantised.Int4(None, torch.bfloat16).embedding(table)(torch.tensor([8, 4, 8]))
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), table[[8, 4, 8]], atol=3e-2, rtol=0)


def test_without_a_compiler_the_operator_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    order = EngineOrder(Config.of(model="demo", quantize="int8"), "demo", None, cache=tmp_path)
    _, notes = make_scheme(order, CPU, lambda *_: None)
    assert len(notes) == 1
    assert "--quantize int8 runs without its kernels" in notes[0]
    assert "apt install g++" in notes[0]


@pytest.mark.parametrize("name", CHOICES)
def test_sums_that_may_not_fit_are_refused(name: str) -> None:
    wide = LinearSpec("h.0.mlp.c_proj", ("down",), 32769, 1, bias=False)
    with pytest.raises(ConfigError, match=r"h\.0\.mlp\.c_proj has 32769 inputs"):
        SCHEMES[name](None, torch.float32).linear(wide, torch.zeros(1, 32769), None)


def test_a_cpu_has_no_8_bit_floats() -> None:
    with pytest.raises(ConfigError, match="--quantize fp8: a CPU has no 8-bit floats; take int8, or --device cuda"):
        chosen("quantize", "fp8").of(CPU, None)
