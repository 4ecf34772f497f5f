"""Attention by row: right in any mix, and the same bits for a query whether it is decoded or comes in a chunk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ridgeline.attention.base import CannotAttend
from ridgeline.attention.batch import Batch
from ridgeline.attention.by_row import ByRow
from ridgeline.core.spec import ModelSpec
from ridgeline.device.cpu import CpuDevice
from tests.attention.test_reference import SPEC, Rows

CPU = CpuDevice(torch.float32, threads=1)
LONG = ModelSpec(layers=2, d_model=24, heads=3, d_inner=8, vocab=5, max_positions=600, scale_by_layer=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_prompts_chunks_and_single_tokens_in_any_mix(dtype: torch.dtype) -> None:
    rows = Rows(ByRow(), dtype)
    rows.step({0: 5, 1: 1, 2: 17})
    rows.step({3: 9, 0: 1, 2: 1, 1: 1})
    rows.step({2: 6, 3: 1, 0: 1, 4: 4})


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_cache_of_8_bits_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(CannotAttend, match="scales"):
        ByRow.open(SPEC, dtype, CPU, None)


def test_over_splits_a_chunk_equals_single_steps() -> None:
    """Bitwise, at contexts around the ends of splits."""
    size, length = 16, 530
    rng = torch.Generator().manual_seed(5)
    q, k, v = torch.randn(3, length, LONG.heads, LONG.head_dim, generator=rng).unbind(0)
    found = [outputs(q, k, v, cuts, size) for cuts in ([length], [250, 1, 5, 1, 255, 1, 1, 16], [1] * length)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    query, key, value = (t.transpose(0, 1)[None] for t in (q, k, v))
    scale = LONG.head_dim**-0.5 / 2
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
    torch.testing.assert_close(found[0], expected[0].transpose(0, 1))


def outputs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cuts: list[int], size: int) -> torch.Tensor:
    """Of the second layer, for one sequence that is computed in pieces of these lengths."""
    attention, blocks = ByRow(), -(-sum(cuts) // size)
    attention.store(LONG, blocks, size, torch.float32, CPU)
    parts, start = [], 0
    for count in cuts:
        at = slice(start, start + count)
        parts.append(attention(1, q[at], k[at], v[at], attention.plan(one_row(start, count, blocks))))
        start += count
    return torch.cat(parts)


def one_row(start: int, count: int, blocks: int) -> Batch:
    at = torch.arange(start, start + count)
    return Batch(
        tokens=at.to(torch.int32), positions=at, writes=at, wanted=at[-1:],
        block_tables=torch.arange(blocks, dtype=torch.int32)[None], query_starts=np.array([0, count]),
        starts=np.array([start]), contexts=np.array([start + count]), max_query=count, max_context=start + count,
        padding=0,
    )  # fmt: skip
