"""Triton's products for many rows of packed weights against plain torch: on a GPU, or through the interpreter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ridgeline.ops import words
from ridgeline.ops.many import multiplied, widened
from ridgeline.ops.words import Words

pytest.importorskip("triton", reason="Triton is not installed: it comes for Linux on x86-64 alone")

from ridgeline.ops.many_triton import Shape, Tiles

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PACKS = pytest.mark.parametrize("pack", [words.int8, words.int4, words.float8])
FORMATS = pytest.mark.parametrize("dtype", [torch.float32, torch.float16])


def normal(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(size).to(DEVICE, dtype)


def same(found: Tensor, expected: Tensor) -> None:
    atol, rtol = (2e-5, 2e-5) if found.dtype is torch.float32 else (6e-3, 6e-3)
    torch.testing.assert_close(found, expected, atol=atol, rtol=rtol)


@pytest.fixture(autouse=True)
def _seed() -> None:
    print("seed", torch.manual_seed(20261126).initial_seed())


@PACKS
@FORMATS
@pytest.mark.parametrize(("rows", "d_in", "d_out"), [(9, 256, 64), (17, 300, 70), (40, 768, 16), (130, 64, 129)])
def test_any_number_of_rows_and_any_shape(
    pack: Callable[[Tensor], Words], dtype: torch.dtype, rows: int, d_in: int, d_out: int
) -> None:
    weight = pack((normal(d_out, d_in) / d_in**0.5).to(dtype))
    given = normal(rows, d_in, dtype=dtype), weight, normal(d_out, dtype=dtype), "gelu_new", normal(
        rows, d_out, dtype=dtype
    )  # fmt: skip
    same(Tiles(4, deep=True, most=256).linear(*given), multiplied(*given))


@PACKS
@pytest.mark.parametrize("programs", [1, 64])
def test_parts_of_the_columns_add_up(pack: Callable[[Tensor], Words], programs: int) -> None:
    """With one program nothing is cut, with many every block of columns is a part."""
    weight, x = pack(normal(24, 1100) / 33), normal(12, 1100)
    for bias, activation, residual in ((None, None, None), (normal(24), "relu", normal(12, 24))):
        given = x, weight, bias, activation, residual
        same(Tiles(programs, deep=False, most=32).linear(*given), multiplied(*given))


@pytest.mark.parametrize("shape", [Shape(16, 16, 1, 1), Shape(32, 64, 2, 2), Shape(128, 32, 8, 4)])
def test_any_tile(shape: Shape) -> None:
    weight, x = words.int4(normal(50, 520) / 23), normal(35, 520)
    given = x, weight, normal(50), "gelu", None
    same(Tiles(8, deep=True, most=64, shape=shape).linear(*given), multiplied(*given))


def test_rows_may_lie_apart() -> None:
    weight, x = words.int8(normal(20, 64) / 8), normal(11, 200)[:, 3:67]
    same(Tiles(2, True, 64).linear(x, weight, None, None, None), multiplied(x, weight, None, None, None))


@PACKS
@FORMATS
@pytest.mark.parametrize(("d_in", "d_out"), [(256, 16), (300, 19), (1600, 33)])
def test_a_whole_matrix_is_widened(pack: Callable[[Tensor], Words], dtype: torch.dtype, d_in: int, d_out: int) -> None:
    weight = pack(normal(d_out, d_in))
    found, expected = Tiles(1, True, 1).widened(weight, dtype), widened(weight, dtype)
    torch.testing.assert_close(found, expected, atol=0, rtol=0 if dtype is torch.float32 else 1e-3)
