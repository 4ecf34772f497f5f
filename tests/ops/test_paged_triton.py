"""Triton's kernels over pages against plain torch: on a GPU where there is one, otherwise through the interpreter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ridgeline.attention.paged import Paged
from ridgeline.ops import paged_decode, paged_prefill, pages
from ridgeline.ops.paged import triton_ops
from ridgeline.ops.paged_decode import Singles
from tests.attention.test_reference import Rows
from tests.ops.paged_cases import Layer, copied, same

pytest.importorskip("triton", reason="Triton is not installed: it comes for Linux on x86-64 alone")

from ridgeline.ops.paged_decode_triton import Decode
from ridgeline.ops.paged_prefill_triton import Prefill
from ridgeline.ops.pages_triton import append

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MHA = Layer(2, 2, 64, 16, torch.float32, device=DEVICE)
LAYERS = {
    "float32": MHA,
    "float16": replace(MHA, dtype=torch.float16, given=torch.float16),
    "pages of 64": replace(MHA, block_size=64),
    "pages of 128, 32 wide": replace(MHA, block_size=128, head_dim=32),
    "pages of 24, 80 wide": replace(MHA, block_size=24, head_dim=80),
    "256 wide": replace(MHA, head_dim=256, heads=1, kv_heads=1),
    "grouped": replace(MHA, heads=6),
    "int8": replace(MHA, dtype=torch.int8, block_size=64),
    "int8, grouped, 8 wide": replace(MHA, dtype=torch.int8, heads=4, head_dim=8),
}
FLOAT8 = replace(MHA, dtype=torch.float8_e4m3fn)
CONTEXTS = [1, 17, 70, 0, 64]
# The interpreter rounds 31.6 to 16 instead of 32 when it stores it as float8: it loses the carry into the exponent.
STORES_FLOAT8 = pytest.mark.skipif(DEVICE.type == "cpu", reason="Triton's interpreter rounds float8 wrongly")
stored = [*LAYERS.values(), pytest.param(FLOAT8, marks=STORES_FLOAT8)]
storing = pytest.mark.parametrize("layer", stored, ids=[*LAYERS, "float8"])
reading = pytest.mark.parametrize("layer", [*LAYERS.values(), FLOAT8], ids=[*LAYERS, "float8"])


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 2e-3 if found.dtype is torch.float16 else 1e-4
    torch.testing.assert_close(found.float(), expected.float(), atol=tolerance, rtol=tolerance)


kernels = pytest.mark.parametrize(
    "kernel",
    [Decode(part=32, tile=16), Decode(whole_from=1), Decode(whole_from=None)],
    ids=["parts", "whole", "always parts"],
)


@storing
@kernels
def test_decode(layer: Layer, kernel: Decode) -> None:
    """Odd contexts, a row that is left out (context 0), and what nobody wrote is no number."""
    decode_twice(layer, kernel, None)


@kernels
@pytest.mark.parametrize("layer", [MHA, LAYERS["int8"]], ids=["float32", "int8"])
def test_decode_in_a_window(layer: Layer, kernel: Decode) -> None:
    decode_twice(layer, kernel, 20)


def decode_twice(layer: Layer, kernel: Decode, window: int | None) -> None:
    rng = torch.Generator().manual_seed(1)
    before, tables = layer.pages(rng, [max(0, context - 1) for context in CONTEXTS])
    tables = torch.cat((tables, torch.full_like(tables[:, :1], before.values.shape[0] - 1)), 1)
    rows, scratch = layer.singles(tables, CONTEXTS), before.values.shape[0] - 1
    for row, context in enumerate(CONTEXTS):  # the new token may begin a page
        if context % layer.block_size == 1:
            used = set(tables.flatten().tolist())
            tables[row, context // layer.block_size] = min(set(range(scratch)) - used)
    q, k, v = (layer.randn(rng, len(CONTEXTS), heads) for heads in (layer.heads, layer.kv_heads, layer.kv_heads))
    found, expected = (torch.full_like(q, 7.0) for _ in range(2))
    by_kernel, by_torch = copied(before), copied(before)
    kernel(q, k, v, found, by_kernel, rows, 0.125, window)
    paged_decode.decode(q, k, v, expected, by_torch, rows, 0.125, window)
    close(found, expected)
    for written in (by_kernel, by_torch):  # scratch may hold anything
        written.values[scratch].zero_()
        if written.scales is not None:
            written.scales[scratch].zero_()
    assert same(by_kernel, by_torch)
    kernel(q, k, v, found, by_kernel, rows, 0.125, window)  # the counters are as they were
    close(found, expected)


def test_decode_of_some_tokens_of_a_batch() -> None:
    rng = torch.Generator().manual_seed(2)
    before, tables = MHA.pages(rng, [30, 9])
    rows = Singles(tables, torch.tensor([30, 9], device=DEVICE), torch.tensor([4, 1], device=DEVICE))
    q, k, v = (MHA.randn(rng, 6, 2) for _ in range(3))
    found, expected = (torch.zeros_like(q) for _ in range(2))
    Decode()(q, k, v, found, copied(before), rows, 0.1)
    paged_decode.decode(q, k, v, expected, copied(before), rows, 0.1)
    close(found, expected)


@storing
def test_a_row_does_not_depend_on_the_others(layer: Layer) -> None:
    rng, kernel = torch.Generator().manual_seed(3), Decode(part=32, tile=16)
    before, tables = layer.pages(rng, [70, 33])
    q, k, v = (layer.randn(rng, 2, heads) for heads in (layer.heads, layer.kv_heads, layer.kv_heads))
    together, alone = torch.empty_like(q), torch.empty_like(q)
    kernel(q, k, v, together, copied(before), layer.singles(tables, [70, 33]), 0.125)
    for row, context in enumerate([70, 33]):
        at = slice(row, row + 1)
        kernel(q[at], k[at], v[at], alone[at], copied(before), layer.singles(tables[at], [context]), 0.125)
    assert torch.equal(together, alone)


@reading
def test_prefill(layer: Layer) -> None:
    """Whole prompts, chunks after a cached prefix, and single tokens, end to end."""
    prefill_all(layer, None)


def test_prefill_in_a_window() -> None:
    prefill_all(MHA, 20)


def prefill_all(layer: Layer, window: int | None) -> None:
    rng, kernel = torch.Generator().manual_seed(4), Prefill(queries=16, keys=16)
    counts, contexts = [5, 20, 17, 1], [5, 20, 60, 30]
    held, tables = layer.pages(rng, contexts)
    spans = layer.spans(tables, counts, contexts, kernel.queries)
    q = layer.randn(rng, sum(counts), layer.heads)
    found, expected = (torch.full_like(q, float("nan")) for _ in range(2))
    kernel(q, found, held, spans, 0.125, window)
    paged_prefill.prefill(q, expected, held, spans, 0.125, window)
    close(found, expected)


def test_prefill_of_padded_rows_and_large_tiles() -> None:
    """A query beyond its row's last position repeats that one."""
    rng, kernel = torch.Generator().manual_seed(5), Prefill()
    held, tables = MHA.pages(rng, [30, 9])
    spans = MHA.spans(tables, [12, 12], [30, 12], kernel.queries)
    spans.facts[1, 3] = 9
    q = MHA.randn(rng, 24, 2)
    found, expected = (torch.full_like(q, float("nan")) for _ in range(2))
    kernel(q, found, held, spans, 0.125)
    paged_prefill.prefill(q, expected, held, spans, 0.125)
    close(found, expected)


@storing
def test_append(layer: Layer) -> None:
    rng = torch.Generator().manual_seed(6)
    before, tables = layer.pages(rng, [40, 40])
    writes = (tables[1, 0].long() * layer.block_size + torch.arange(16, device=DEVICE))[torch.randperm(16)[:13]]
    k, v = (layer.randn(rng, 13, layer.kv_heads) * 100 for _ in range(2))
    by_kernel, by_torch = copied(before), copied(before)
    append(by_kernel, k, v, writes)
    pages.append(by_torch, k, v, writes)
    assert same(by_kernel, by_torch)


def test_append_of_more_than_float16_holds() -> None:
    layer = replace(MHA, dtype=torch.float16)
    held, _ = layer.pages(torch.Generator().manual_seed(7), [16])
    huge = torch.full((1, 2, 64), 1e9, device=DEVICE)
    append(held, huge, -huge, torch.tensor([3], device=DEVICE))
    keys, values = held.read(torch.tensor([0], device=DEVICE))
    assert (keys[0, :, 3] == 65504).all()
    assert (values[0, :, 3] == -65504).all()


@pytest.mark.skipif(DEVICE.type == "cuda", reason="the rows of this test lie on a CPU")
def test_a_backend_of_kernels() -> None:
    """Prompts, chunks and single tokens in any mix, as the runner brings them."""
    rows = Rows(Paged(triton_ops()), torch.float32)
    rows.step({0: 5, 1: 1, 2: 17})
    rows.step({3: 9, 0: 1, 2: 1, 1: 1})
    rows.step({2: 6, 3: 1, 0: 1, 4: 4})
    rows.step({0: 1, 1: 1, 2: 1, 3: 1, 4: 1})
