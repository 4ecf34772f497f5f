"""Whether Triton's kernels are right on this GPU: the cases of check_gpu.py that have no clock. Knows no speed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from scripts.gpu_bench import Bench, Case, Numbers
from tests.ops.paged_cases import Layer, copied, same
from torch import Tensor

from ridgeline.ops import fused_triton, norm, paged_decode, paged_prefill, pages, pages_triton
from ridgeline.ops.flash_triton import attention_with_scores, flash_attention
from ridgeline.ops.paged_decode_triton import Decode
from ridgeline.ops.paged_prefill_triton import Prefill

LIMITS = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 1e-2}
"""Error norms that rounding explains: a kernel's results are rounded to the format of its queries."""


def judged(found: Tensor, expected: Tensor, limit: float) -> Numbers:
    error = float((found.double() - expected.double()).norm() / expected.double().norm())
    return {"error norm": float(f"{error:.3g}"), "right": error <= limit}


def formats(bench: Bench) -> Iterator[Case]:
    plain = _plain(bench)
    yield from _layer_cases("plain", plain, windows=(None, 100))
    if bench.dry:
        return
    yield from _layer_cases("float16", replace(plain, dtype=torch.float16, given=torch.float16))
    yield from _layer_cases("float32", replace(plain, dtype=torch.float32, given=torch.float32))
    yield from _layer_cases("pages of 16", replace(plain, block_size=16))


def shapes(bench: Bench) -> Iterator[Case]:
    plain = _plain(bench)
    if bench.dry:
        plain = replace(plain, block_size=16)
    for width in bench.pick((32, 80, 128, 256), (8,)):
        yield from _layer_cases(f"{width} wide", replace(plain, head_dim=width))
    yield from _layer_cases("pages of 128", replace(plain, block_size=128))
    yield from _layer_cases("grouped", replace(plain, heads=8))


def eight_bits(bench: Bench) -> Iterator[Case]:
    plain = _plain(bench)
    yield from _layer_cases("int8", replace(plain, dtype=torch.int8), windows=bench.pick((None, 100), (None,)))
    if bench.dry:  # the interpreter stores float8 wrongly
        return
    yield from _layer_cases("float8", replace(plain, dtype=torch.float8_e4m3fn))
    wide = Layer(8, 2, 128, 16, torch.int8, bench.half, bench.device)
    yield from _layer_cases("int8, grouped, 128 wide, pages of 16", wide)


def small(bench: Bench) -> Iterator[Case]:
    for dtype in bench.pick((torch.float32, torch.bfloat16), (torch.float32,)):
        for rows, d in ((1, 768), (33, 1600)):
            yield f"add_layer_norm {rows} x {d} {dtype}", partial(_norm_case, bench, dtype, rows, d)
        yield f"flash_attention {dtype}", partial(_flash_case, bench, dtype)


PARITY = {"formats": formats, "shapes": shapes, "eight bits": eight_bits, "small": small}


def _plain(bench: Bench) -> Layer:
    return Layer(2, 2, 64, 64, bench.half, bench.half, bench.device)


def _layer_cases(name: str, layer: Layer, windows: tuple[int | None, ...] = (None,)) -> Iterator[Case]:
    yield f"append, {name}", partial(_append_case, layer)
    for window in windows:
        about = name if window is None else f"{name}, a window of {window}"
        yield f"decode in parts, {about}", partial(_decode_case, layer, Decode(whole_from=1000), window)
        yield f"decode whole, {about}", partial(_decode_case, layer, Decode(whole_from=1), window)
        yield f"prefill, {about}", partial(_prefill_case, layer, window)


def _decode_case(layer: Layer, kernel: Decode, window: int | None) -> Numbers:
    """Contexts of every kind; twice, because the second launch finds what the first left in its counters."""
    rng, contexts = torch.Generator().manual_seed(1), [1, 64, 65, 700, 255, 256, 257, 0, 513, 1000]
    if layer.device.type == "cpu":
        contexts = [1, 64, 0, 90]
    width = -(-max(contexts) // layer.block_size) * layer.block_size
    held, tables = layer.pages(rng, [width] * len(contexts))
    rows = layer.singles(tables, contexts)
    q, k, v = (layer.randn(rng, len(contexts), n) for n in (layer.heads, layer.kv_heads, layer.kv_heads))
    found, expected = torch.full_like(q, float("nan")), torch.empty(q.shape, device=q.device)
    by_kernel, by_torch = copied(held), copied(held)
    paged_decode.decode(q, k, v, expected, by_torch, rows, 0.125, window)
    for _ in range(2):
        found.fill_(float("nan"))
        kernel(q, k, v, found, by_kernel, rows, 0.125, window)
    return judged(found, expected, LIMITS[layer.given]) | {"same pages": same(by_kernel, by_torch)}


def _prefill_case(layer: Layer, window: int | None) -> Numbers:
    rng, kernel = torch.Generator().manual_seed(2), Prefill()
    counts, contexts = [200, 1, 70, 129, 64], [200, 30, 500, 129, 1000]
    if layer.device.type == "cpu":
        counts, contexts = [40, 1, 9], [40, 7, 70]
    held, tables = layer.pages(rng, contexts)
    spans = layer.spans(tables, counts, contexts, kernel.queries)
    q = layer.randn(rng, sum(counts), layer.heads)
    found, expected = torch.full_like(q, float("nan")), torch.empty(q.shape, device=q.device)
    kernel(q, found, held, spans, 0.125, window)
    paged_prefill.prefill(q, expected, held, spans, 0.125, window)
    return judged(found, expected, LIMITS[layer.given])


def _append_case(layer: Layer) -> Numbers:
    rng = torch.Generator().manual_seed(3)
    held, _ = layer.pages(rng, [128, 128])
    k, v = (layer.randn(rng, 61, layer.kv_heads) * 100 for _ in range(2))
    writes = torch.randperm(128, generator=rng)[:61].to(layer.device)
    by_kernel, by_torch = copied(held), copied(held)
    pages_triton.append(by_kernel, k, v, writes)
    pages.append(by_torch, k, v, writes)
    return {"same pages": same(by_kernel, by_torch)}


def _norm_case(bench: Bench, dtype: torch.dtype, rows: int, d: int) -> Numbers:
    x, residual, weight, bias = (bench.randn(*size, dtype=dtype) for size in ((rows, d), (rows, d), (d,), (d,)))
    total, out = fused_triton.add_layer_norm(x, residual, weight, bias, 1e-5)
    expected = norm.add_layer_norm_by_hand(x, residual, weight, bias, 1e-5)
    wide = norm.layer_norm_by_hand(expected[0].float(), weight.float(), bias.float(), 1e-5)
    return judged(out, wide, LIMITS[dtype]) | {"same sum": torch.equal(total, expected[0])}


def _flash_case(bench: Bench, dtype: torch.dtype) -> Numbers:
    q, k, v = (bench.randn(2, bench.pick(333, 70), 64, dtype=dtype) for _ in range(3))
    return judged(flash_attention(q, k, v), attention_with_scores(q.float(), k.float(), v.float()), LIMITS[dtype])
