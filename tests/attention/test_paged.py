"""Paged attention on a CPU: plain torch behind the same seam that kernels stand behind on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ridgeline.attention.base import CannotAttend
from ridgeline.attention.paged import Paged
from ridgeline.attention.paged_rows import PagedRows
from ridgeline.core.spec import ModelSpec
from ridgeline.device.cpu import CpuDevice
from ridgeline.ops.paged import REFERENCE
from ridgeline.ops.pages import SCALED, Pages, append, bytes_per_token
from tests.attention.test_reference import BLOCK, NUM_BLOCKS, SPEC, Rows

CPU = CpuDevice(torch.float32)


def is_held(rows: Rows) -> None:
    """Every key and value that was given, as the cache's format has it."""
    for row, held in rows.blocks.items():
        for layer in range(SPEC.layers):
            keys, values = rows.store.read(layer, held)
            kept = rows.kept[row][layer]
            assert torch.equal(keys[: len(kept)], torch.stack([k for k, _ in kept]))
            assert torch.equal(values[: len(kept)], torch.stack([v for _, v in kept]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_prompts_chunks_and_single_tokens_in_any_mix(dtype: torch.dtype) -> None:
    rows = Rows(Paged(), dtype)
    rows.step({0: 5, 1: 1, 2: 17})
    rows.step({3: 9, 0: 1, 2: 1, 1: 1})
    rows.step({2: 6, 3: 1, 0: 1, 4: 4})
    rows.step({0: 1, 1: 1, 2: 1, 3: 1, 4: 1})
    rows.step({4: 2, 0: 1})
    is_held(rows)


def test_scales_of_a_model() -> None:
    rows = Rows(Paged(), torch.float32, ModelSpec(3, 24, 3, 8, 5, 64, scale_by_layer=True))
    rows.step({0: 6})
    rows.step({0: 2, 1: 1})


def test_a_steady_plan_follows_its_tensors() -> None:
    """Planned once; what tables and contexts hold later counts. A row of nobody writes to scratch alone."""
    attention, width = Paged(), 3
    store = attention.store(SPEC, NUM_BLOCKS, BLOCK, torch.float32, CPU)
    tables = torch.full((3, width), NUM_BLOCKS, dtype=torch.int32)
    contexts = torch.zeros(3, dtype=torch.int64)
    meta = attention.plan_steady(tables, contexts)
    rng = torch.Generator().manual_seed(3)
    k, v, q = torch.randn(3, 10, 3, SPEC.heads, SPEC.head_dim, generator=rng).unbind(0)
    tables[0], tables[2] = torch.tensor([7, 1, 4]), torch.tensor([2, 9, 5])
    for made in range(10):
        contexts[0] = contexts[2] = made + 1
        out = attention(1, q[made], k[made], v[made], meta)
        for row in (0, 2):
            seen = slice(0, made + 1)
            scores = torch.einsum("hd,nhd->hn", q[made, row], k[seen, row]) * SPEC.head_dim**-0.5
            expected = torch.einsum("hn,nhd->hd", scores.softmax(-1), v[seen, row])
            torch.testing.assert_close(out[row], expected)
    keys, _ = store.read(1, [7, 1, 4])
    assert torch.equal(keys[:10], k[:, 0])


def test_a_window_forgets_what_is_further_back() -> None:
    rng = torch.Generator().manual_seed(4)
    given = torch.randn(3, 12, SPEC.heads, SPEC.head_dim, generator=rng)
    whole, cut = Rows(Paged(), torch.float32), Rows(Paged(window=5), torch.float32)
    outs = []
    for rows, first in ((whole, 7), (cut, 0)):  # the last query of 12 sees positions 7 to 11
        count = 12 - first
        q, k, v = given[:, first:].unbind(0)
        outs.append(rows.attention(0, q, k, v, rows.attention.plan(rows._batch({0: count})))[-1])
    torch.testing.assert_close(outs[0], outs[1])


@pytest.mark.parametrize("dtype", SCALED)
def test_a_cache_of_eight_bits_keeps_what_it_can(dtype: torch.dtype) -> None:
    """Whatever the size of the values, the largest and the smallest included; zeros too."""
    pages = Pages.make(3, 2, BLOCK, 8, dtype, torch.device("cpu"))
    k, v = torch.randn(2, 4, 2, 8, generator=torch.Generator().manual_seed(5)).unbind(0)
    k = k * torch.tensor([1e-6, 1.0, 300.0, 0.0])[:, None, None]
    append(pages, k, v, torch.tensor([4, 5, 6, 7]))
    keys, values = pages.read(torch.tensor([1]))
    step = 1 / 127 if dtype is torch.int8 else 1 / 8
    for stored, given in ((keys[0], k), (values[0], v)):
        most = given.abs().amax(-1, keepdim=True)
        assert ((stored.transpose(0, 1) - given).abs() <= 0.51 * step * most + 2.0**-24).all()


def test_bytes_of_a_token() -> None:
    assert bytes_per_token(12, 64, torch.bfloat16) == 2 * 12 * 128
    assert bytes_per_token(12, 64, torch.int8) == 2 * 12 * 66


def test_queries_that_are_rows_of_their_own() -> None:
    rows = Rows(PagedRows(REFERENCE), torch.float32)
    rows.step({0: 5, 1: 1, 2: 17})
    rows.step({3: 9, 0: 1, 2: 1, 1: 1})
    rows.step({0: 1, 1: 1, 2: 1, 3: 1})
    rows.step({2: 6, 3: 1, 0: 1, 4: 4})


def test_on_a_cpu_rows_of_pages_cannot_be_had() -> None:
    with pytest.raises(CannotAttend, match="needs a GPU"):
        PagedRows.open(SPEC, torch.float32, CPU, None)


def test_what_it_serves(tmp_path: Path) -> None:
    assert Paged.open(SPEC, torch.int8, CPU, tmp_path).block_bytes(SPEC, 16, torch.int8) == 2 * 16 * 2 * 3 * (8 + 2)
    with pytest.raises(CannotAttend, match="this model's have 512"):
        Paged.open(ModelSpec(1, 1024, 2, 8, 5, 64), torch.float32, CPU, tmp_path)
