"""Tiled: a scheme whose products depend on the batch gives the same bits in every batch once it sees tiles."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ridgeline.device.cpu import CpuDevice
from ridgeline.models.linear import Dense, LinearSpec
from ridgeline.models.tiled import Tiled
from ridgeline.ops.linear import linear_kernel
from ridgeline.runner.determinism import Batch, Off, Run

DEVICES = {
    "float32": CpuDevice(torch.float32, threads=1),
    "bfloat16": CpuDevice(torch.bfloat16, threads=1, native_bfloat16=True),
    "bfloat16, widened": CpuDevice(torch.bfloat16, threads=1, native_bfloat16=False),
}


def dense(device: CpuDevice) -> Dense:
    return Dense(linear_kernel(device), device.compute)


def by_place(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A library that treats the places of a tile differently."""
    y = torch.nn.functional.linear(x, weight, bias)
    return y + 1e-3 * torch.arange(x.shape[0])[:, None]


@pytest.mark.parametrize("formats", DEVICES)
@pytest.mark.parametrize(("d_in", "d_out"), [(64, 192), (37, 101), (768, 2304)])
@pytest.mark.parametrize("activation", [None, "gelu_new"])
def test_a_row_has_the_same_bits_in_every_batch(formats: str, d_in: int, d_out: int, activation: str | None) -> None:
    device = DEVICES[formats]
    rng = torch.Generator().manual_seed(d_in)
    weight = (torch.randn(d_out, d_in, generator=rng) / d_in**0.5).to(device.dtype)
    bias, spec = torch.randn(d_out, generator=rng), LinearSpec("x", ("x",), d_in, d_out, activation=activation)
    tiled, plain = Tiled(dense(device), device).linear(spec, weight, bias), dense(device).linear(spec, weight, bias)
    x, residual = (torch.randn(70, d, generator=rng).to(device.compute) for d in (d_in, d_out))
    whole = tiled(x, residual.clone())
    assert whole.is_contiguous()
    torch.testing.assert_close(whole, plain(x, residual.clone()), atol=5e-2, rtol=2e-2)
    for first, end in pairwise((0, 1, 3, 19, 20, 52, 70)):
        assert torch.equal(tiled(x[first:end], residual[first:end].clone()), whole[first:end]), (first, end)
    turned = torch.arange(69, -1, -1)
    assert torch.equal(tiled(x[turned], residual[turned]), whole[turned])


def test_where_places_differ_every_row_is_computed_alone() -> None:
    device = DEVICES["float32"]
    tiled = Tiled(Dense(by_place, torch.float32), device).linear(LinearSpec("x", ("x",), 8, 4), torch.ones(4, 8),
                                                                 torch.zeros(4))  # fmt: skip
    assert torch.equal(tiled(torch.ones(40, 8)), torch.full((40, 4), 8.0))


def test_a_level_takes_what_promises_enough() -> None:
    device = DEVICES["float32"]
    scheme = dense(device)
    assert Off().scheme(scheme, device) is Run().scheme(scheme, device) is scheme
    once = Batch().scheme(scheme, device)
    assert isinstance(once, Tiled)
    assert Batch().scheme(once, device) is once
