"""Matrices as they are on a CPU: few rows and many give the same but for rounding, over one copy of the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ridgeline.device.cpu import CpuDevice
from ridgeline.device.jit import can_compile
from ridgeline.models.linear import LinearSpec
from ridgeline.models.linear_cpu import MOST_ROWS, CpuDense, OnlyTorch
from ridgeline.ops.dense import Plain, plain_linear

FORMATS = {
    "float32": CpuDevice(torch.float32, threads=2),
    "bfloat16": CpuDevice(torch.bfloat16, threads=2, native_bfloat16=True),
    "bfloat16, widened": CpuDevice(torch.bfloat16, threads=2, native_bfloat16=False),
    "float16": CpuDevice(torch.float16, threads=2),
}


@pytest.fixture(params=FORMATS)
def device(request: pytest.FixtureRequest) -> CpuDevice:
    return FORMATS[request.param]


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not can_compile():
        pytest.skip("there is no compiler")
    return tmp_path_factory.getbasetemp()


@pytest.mark.parametrize("activation", [None, "gelu_new"])
def test_few_rows_and_many_are_multiplied_alike(device: CpuDevice, cache: Path, activation: str | None) -> None:
    rng = torch.Generator().manual_seed(0)
    weight = (torch.randn(70, 96, generator=rng) / 10).to(device.dtype)
    bias = torch.randn(70, generator=rng)
    made = CpuDense.of(device, cache).linear(LinearSpec("x", ("x",), 96, 70, activation=activation), weight, bias)
    most = MOST_ROWS[device.dtype]
    for rows in (1, 2, most, most + 1, 40):
        x, residual = (torch.randn(rows, width, generator=rng).to(device.compute) for width in (96, 70))
        expected = plain_linear(x, Plain(weight, bias, activation), residual)
        atol, rtol = (5e-2, 2e-2) if device.compute is torch.bfloat16 else (1e-4, 1e-4)
        torch.testing.assert_close(made(x, residual.clone()), expected, atol=atol, rtol=rtol)
        torch.testing.assert_close(made(x), expected - residual, atol=atol, rtol=rtol)


def test_a_table_that_is_the_head_too_is_held_once(device: CpuDevice, cache: Path) -> None:
    weight = torch.randn(50, 32).to(device.dtype)
    rows, head = CpuDense.of(device, cache).tied(LinearSpec("head", ("vocab",), 32, 50, bias=False), weight)
    looked_up = rows(torch.tensor([49, 3]))
    assert torch.equal(looked_up, weight[[49, 3]].to(device.compute))
    weight.zero_()
    assert torch.equal(rows(torch.tensor([49, 3])), looked_up)
    assert head(looked_up).any()


def test_without_a_compiler_pytorch_multiplies_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    device = CpuDevice(torch.float32, threads=2)
    scheme = CpuDense.of(device, None)
    assert isinstance(scheme, OnlyTorch)
    assert "PyTorch" in scheme.notes[0]
    assert "compiler" in scheme.notes[0]
    made = scheme.linear(LinearSpec("x", ("x",), 3, 2), torch.ones(2, 3), torch.zeros(2))
    assert made(torch.ones(1, 3)).tolist() == [[3.0, 3.0]]
