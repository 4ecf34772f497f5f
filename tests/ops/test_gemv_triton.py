"""Triton's products for few rows against plain torch: on a GPU if there is one, otherwise through the interpreter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ridgeline.ops import words
from ridgeline.ops.gemv import Layer, LayerNorm, fused_linear, greedy_head, layer
from ridgeline.ops.sample import greedy
from ridgeline.ops.words import Words

pytest.importorskip("triton", reason="Triton is not installed: it comes for Linux on x86-64 alone")

from ridgeline.ops.gemv_triton import Kernels, Tile

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KERNELS = Kernels(dependent=False)
FORMATS = pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
TILES = [Tile(), Tile(parts=2), Tile(parts=3, warps=2), Tile(warps=4, span=2), Tile(warps=4, span=4), Tile(warps=8)]


def normal(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(size).to(DEVICE, dtype)


def made(
    d_in: int, d_out: int, dtype: torch.dtype, *, pack: Callable[[Tensor], Words] = words.plain, bias: bool = True,
    norm: bool = True, activation: str | None = None,
) -> Layer:  # fmt: skip
    given = LayerNorm(normal(d_in, dtype=dtype), normal(d_in, dtype=dtype), 1e-5) if norm else None
    weight = pack((normal(d_out, d_in) / d_in**0.5).to(dtype))
    return layer(weight, normal(d_out, dtype=dtype) if bias else None, given, activation)


def same(found: Tensor, expected: Tensor) -> None:
    atol, rtol = (2e-5, 2e-5) if found.dtype is torch.float32 else (4e-3, 4e-3)
    torch.testing.assert_close(found, expected, atol=atol, rtol=rtol)


@pytest.fixture(autouse=True)
def _seed() -> None:
    print("seed", torch.manual_seed(20261126).initial_seed())


@FORMATS
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 16])
def test_any_number_of_rows(rows: int, dtype: torch.dtype) -> None:
    x, of = normal(rows, 96, dtype=dtype) * 3 + 1, made(96, 13, dtype, activation="gelu_new")
    residual = normal(rows, 13, dtype=dtype)
    same(KERNELS.linear(x, of, residual), fused_linear(x, of, residual))


@pytest.mark.parametrize("d_in", [1, 48, 256, 300, 768, 1600])
@pytest.mark.parametrize("norm", [True, False])
def test_any_width(d_in: int, norm: bool) -> None:
    x, of = normal(2, d_in) + 5, made(d_in, 9, torch.float32, norm=norm)
    same(KERNELS.linear(x, of), fused_linear(x, of))


@pytest.mark.parametrize("activation", [None, "gelu_new", "gelu", "relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_any_activation(activation: str | None, bias: bool) -> None:
    x, of = normal(2, 64) * 8, made(64, 40, torch.float32, bias=bias, norm=False, activation=activation)
    x[0] *= 100
    torch.testing.assert_close(KERNELS.linear(x, of), fused_linear(x, of), atol=2e-4, rtol=2e-5)


@pytest.mark.parametrize("tile", TILES)
def test_any_tile(tile: Tile) -> None:
    x, of, residual = normal(3, 520), made(520, 37, torch.float32), normal(3, 37)
    same(Kernels(False, lambda _, __: tile).linear(x, of, residual), fused_linear(x, of, residual))


@FORMATS
@pytest.mark.parametrize("pack", [words.int8, words.int4, words.float8])
@pytest.mark.parametrize(("rows", "d_in"), [(1, 256), (3, 300), (5, 768)])
def test_any_format_of_weights(pack: Callable[[Tensor], Words], rows: int, d_in: int, dtype: torch.dtype) -> None:
    x, of = normal(rows, d_in, dtype=dtype), made(d_in, 41, dtype, pack=pack, activation="gelu")
    residual = normal(rows, 41, dtype=dtype)
    same(KERNELS.linear(x, of, residual), fused_linear(x, of, residual))


@pytest.mark.parametrize("pack", [words.plain, words.int4])
def test_a_row_does_not_depend_on_the_others(pack: Callable[[Tensor], Words]) -> None:
    """At one tile: which one, the number of rows may decide."""
    kernels = Kernels(False, lambda _, __: Tile())
    x, of, residual = normal(5, 300), made(300, 11, torch.float32, pack=pack), normal(5, 11)
    whole = kernels.linear(x, of, residual)
    for row in range(5):
        mine = slice(row, row + 1)
        assert torch.equal(kernels.linear(x[mine], of, residual[mine]), whole[mine])


def test_rows_may_lie_apart() -> None:
    x, of, residual = normal(3, 2, 64)[:, 1], made(64, 10, torch.float32), normal(3, 32)[:, :10]
    same(KERNELS.linear(x, of, residual), fused_linear(x, of, residual))


def test_a_norm_far_from_zero_loses_little() -> None:
    x, of = normal(2, 768) + 1000, made(768, 16, torch.float32)
    x[1, 5] = 30000.0  # one that stands out, as in trained models
    torch.testing.assert_close(KERNELS.linear(x, of), fused_linear(x, of), atol=2e-3, rtol=2e-3)


@FORMATS
@pytest.mark.parametrize("rows", [1, 3])
def test_a_head_and_its_likeliest(rows: int, dtype: torch.dtype) -> None:
    x, of = normal(rows, 64, dtype=dtype), made(64, 67, dtype, bias=False)
    logits, chosen = KERNELS.greedy_head(x, of)
    same(logits, greedy_head(x, of)[0])
    assert torch.equal(chosen, greedy(logits))


def test_of_equal_logits_the_lowest_is_chosen() -> None:
    of = made(64, 67, torch.float32, bias=False, norm=False)
    x = normal(2, 64)
    best = int(fused_linear(x[:1], of).argmax())
    of.weight.words[[7, 50, 66]] = 2 * of.weight.words[best]
    assert KERNELS.greedy_head(x[:1], of)[1].tolist() == [7]
    of.weight.words.zero_()
    assert KERNELS.greedy_head(x, of)[1].tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 4096), (2, 9001)])
def test_likeliest_of_many(shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits = (normal(*shape) * 3).to(dtype)
    assert torch.equal(KERNELS.greedy(logits), greedy(logits))
    logits.fill_(-float("inf"))
    assert torch.equal(KERNELS.greedy(logits), greedy(logits))
    if shape[1] > 7:
        logits[:, [3, 5]] = float("nan")
        assert torch.equal(KERNELS.greedy(logits), greedy(logits))


def test_padding_is_never_chosen() -> None:
    padded = normal(3, 320)
    padded[:, 300:] = 1e9
    assert torch.equal(KERNELS.greedy(padded[:, :300]), greedy(padded[:, :300]))
