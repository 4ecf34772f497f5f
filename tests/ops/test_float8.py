"""Products of 8-bit floats: against their definition, and which a GPU gets. A CPU multiplies them too, slowly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ridgeline.ops import float8, words
from ridgeline.ops.float8 import PRODUCTS, Dynamic, Product, choose, defined, quantised, scaled_products
from ridgeline.ops.gemv import LayerNorm

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def normal(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(size).to(DEVICE, dtype)


@pytest.fixture(autouse=True)
def _seed() -> None:
    print("seed", torch.manual_seed(20261126).initial_seed())


def test_the_order_of_x_is_that_of_the_bytes_of_the_matrix() -> None:
    x, weight = normal(5, 300), normal(32, 300)
    values, scales = quantised(x, None)
    packed = words.float8(weight)
    assert packed.scales is not None
    found = values.float() @ float8.columns_of(packed).float() * scales * packed.scales.t()
    expected = x @ packed.values().t()
    assert float((found - expected).norm() / expected.norm()) < 0.04  # a rounding of x to 4 bits


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(("rows", "d_in"), [(1, 64), (9, 256), (3, 300), (4, 1600)])
def test_the_kernel_quantises_as_defined(rows: int, d_in: int, norm: bool) -> None:
    pytest.importorskip("triton", reason="Triton is not installed: it comes for Linux on x86-64 alone")
    from ridgeline.ops.float8_triton import quantised as by_kernel

    x = normal(rows, d_in) * 3 + 1
    x[0] = 0
    given = LayerNorm(normal(d_in), normal(d_in), 1e-5) if norm else None
    (values, scales), (wanted, wanted_scales) = by_kernel(x, given), quantised(x, given)
    torch.testing.assert_close(scales, wanted_scales)
    found, expected = values.float(), wanted.float()
    assert found.shape == expected.shape
    # A value between two neighbours of 8 bits may go either way where its last bit of 32 differs. Triton's interpreter
    # loses the carry into the exponent, and so rounds 127 to 64 instead of 128.
    differ = (found != expected) if DEVICE.type == "cuda" else (found != expected) & (found * 2 != expected)
    assert float(differ.float().mean()) < 0.01
    torch.testing.assert_close(found[~(found * 2 == expected)], expected[~(found * 2 == expected)], atol=1, rtol=0.126)


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("activation", [None, "gelu_new"])
@pytest.mark.parametrize("norm", [True, False])
def test_products_are_the_definition(name: str, activation: str | None, norm: bool) -> None:
    product: Product = PRODUCTS[name]
    bf16 = torch.bfloat16
    x, weight = normal(24, 320, dtype=bf16), words.float8(normal(48, 320) / 18)
    given = LayerNorm(normal(320, dtype=bf16), normal(320, dtype=bf16), 1e-5) if norm else None
    bias, residual = normal(48, dtype=bf16), normal(24, 48, dtype=bf16)
    for plus in ((bias, residual), (None, None)):
        found = Dynamic(name, quantised, product).linear(x, given, weight, plus[0], activation, plus[1])
        expected = defined(x, given, weight, plus[0], activation, plus[1])
        assert float((found - expected).float().norm() / expected.float().norm()) < 1e-2


class Trial:
    """Products that work as numbered, from the preferred one."""

    def __init__(self, *works: int) -> None:
        self._works, self.tried = works, 0

    def __call__(self, _scaled: Any) -> None:
        self.tried += 1
        if self.tried not in self._works:
            raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")


@pytest.mark.parametrize(
    ("capability", "dtype", "trial", "reason"),
    [
        ((8, 0), torch.bfloat16, Trial(1), "this is compute capability 8.0"),
        ((9, 0), torch.float16, Trial(1), "come out in bfloat16"),
        ((9, 0), torch.bfloat16, Trial(), "CUBLAS_STATUS_NOT_SUPPORTED"),
    ],
)
def test_what_cannot_be_has_a_reason(
    capability: tuple[int, int], dtype: torch.dtype, trial: Callable[[Any], None], reason: str
) -> None:
    chosen = choose(capability, dtype, quantised, trial)
    assert chosen.scaled is None
    assert reason in chosen.note


def test_a_library_without_scales_a_row_gets_one_a_matrix() -> None:
    chosen = choose((12, 0), torch.bfloat16, quantised, Trial(2))
    assert isinstance(chosen.scaled, Dynamic)
    assert chosen.scaled.product is float8.by_tensor
    assert "a scale a row failed" in chosen.note


def test_there_are_none_on_a_cpu() -> None:
    assert scaled_products(torch.device("cpu"), torch.bfloat16).scaled is None
