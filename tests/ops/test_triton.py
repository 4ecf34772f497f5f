"""The rest of Triton's kernels against plain torch: on a GPU where there is one, otherwise through the interpreter."""

from __future__ import annotations

import pytest
import torch

from ridgeline.ops import norm

pytest.importorskip("triton", reason="Triton is not installed: it comes for Linux on x86-64 alone")

from ridgeline.ops import fused_triton
from ridgeline.ops.flash_triton import attention_with_scores, bytes_moved, flash_attention

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
formats = pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
shapes = pytest.mark.parametrize(("rows", "d"), [(1, 64), (3, 1000), (5, 3072)])


def randn(dtype: torch.dtype, *size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(sum(size))).to(dtype).to(DEVICE)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 3e-3 if found.dtype is torch.float16 else 1e-5
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@formats
@shapes
def test_add_layer_norm(rows: int, d: int, dtype: torch.dtype) -> None:
    """The sum bit for bit; of rows that are a slice of something wider too."""
    x, residual = randn(dtype, rows, 2 * d)[:, :d], randn(dtype, rows, d)
    weight, bias = randn(dtype, d), randn(dtype, d + 1)[1:]
    total, out = fused_triton.add_layer_norm(x, residual, weight, bias, 1e-5)
    expected_total, expected = norm.add_layer_norm_by_hand(x, residual, weight, bias, 1e-5)
    assert torch.equal(total, expected_total)
    close(out, expected)


@formats
@pytest.mark.parametrize("tokens", [1, 16, 33, 100])
def test_flash_attention(tokens: int, dtype: torch.dtype) -> None:
    q, k, v = randn(dtype, 3, 2, tokens, 32).unbind(0)
    close(flash_attention(q, k, v, queries=16, keys=16), attention_with_scores(q, k, v))


def test_bytes_that_flash_attention_moves() -> None:
    """Counted tile by tile, as the kernel's loop goes."""
    tokens, head_dim, value_bytes, tile = 256, 64, 2, 64
    counted = 0
    for first in range(0, tokens, tile):
        counted += 2 * tile * head_dim * value_bytes  # its queries and its results
        counted += sum(2 * tile * head_dim * value_bytes for _ in range(0, first + tile, tile))
    found, with_scores = bytes_moved(tokens, head_dim, value_bytes, queries=tile)
    assert found == counted
    assert with_scores == (2 + 2) * tokens * head_dim * value_bytes + (1 + 2 + 1) * tokens**2 * value_bytes
