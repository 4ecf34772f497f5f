"""Whether Triton's kernels are right on this GPU, in bfloat16 too, and how near they come to its limits.

    PYTHONPATH=src python -m scripts.check_gpu --out run.json
    PYTHONPATH=src TRITON_INTERPRET=1 python -m scripts.check_gpu --dry-run

An error norm is |out - reference| / |reference|; the reference is plain torch in float32 over what the cache holds.
Decode attention is timed against the bytes of its keys and values; prefill against the operations that causal
attention needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from scripts.check_parity import PARITY
from scripts.gpu_bench import Bench, Case, Fastest, Group, Numbers, main
from torch import Tensor

from ridgeline.attention.paged import Paged
from ridgeline.ops import fused_triton, norm, pages, pages_triton
from ridgeline.ops.paged_decode import Singles
from ridgeline.ops.paged_decode_triton import Decode
from ridgeline.ops.paged_prefill import Spans
from ridgeline.ops.paged_prefill_triton import Prefill
from ridgeline.ops.pages import Pages, bytes_per_token

HEADS, HEAD_DIM, CONTEXT = 12, 64, 512


def read(bench: Bench) -> Iterator[Case]:
    """What shares of bandwidth divide by."""
    size = bench.pick(5_000_000_000, 4096)

    def case() -> Numbers:
        from ridgeline.device.kernels_cuda import Kernels

        values = torch.randint(-(2**30), 2**30, (size // 4,), dtype=torch.int32, device=bench.device)
        run: Callable[[], object] = partial(torch.sum, values)
        if not bench.dry:
            run = partial(Kernels(bench.device).read, values, 1)
        return bench.timed(run, moved=size)

    yield "read 5 GB", case


def decode(dtype: torch.dtype, bench: Bench) -> Iterator[Case]:
    """A layer of GPT-2 124M. Several layers' pages take turns, so that none is still in L2."""
    fastest = Fastest()
    for rows in bench.pick((1, 8, 64, 256), (2,)):
        cache = _Cache(bench, rows, bench.pick(CONTEXT, 64), dtype)
        what = f"decode, batch {rows}, {str(dtype).removeprefix('torch.')}"
        for kernel in bench.pick(_decode_kernels(rows), [Decode()]):
            about = f"part {kernel.part}, tile {kernel.tile}, {kernel.warps} warps, {kernel.stages} stages"
            yield f"{what}: {about}", partial(fastest.of, what, about, partial(cache.timed, kernel))
        yield f"fastest {what}", partial(fastest.told, what)
    few = _Cache(bench, bench.pick(256, 2), bench.pick(CONTEXT, 64), dtype, block_size=16)
    yield "decode, batch 256, pages of 16", partial(few.timed, Decode())


def _decode_kernels(rows: int) -> list[Decode]:
    parts = (64, 128, 256) if rows < 64 else (256,)
    shapes = [(64, 4, 2), (64, 4, 3), (32, 4, 3)]
    if rows >= 64:
        shapes += [(64, 4, 4), (64, 8, 2), (32, 2, 3), (32, 2, 4)]
    return [Decode(part, 64, tile, warps, stages) for part in parts for tile, warps, stages in shapes]


class _Cache:
    """Pages of several layers, all with the same sequences; filled with random values, whatever the format."""

    def __init__(
        self, bench: Bench, rows: int, context: int, dtype: torch.dtype, block_size: int = Paged.prefers
    ) -> None:
        self.bench, width = bench, -(-context // block_size)
        self.moved = rows * context * bytes_per_token(HEADS, HEAD_DIM, dtype)
        self.layers = [
            self._filled(rows * width + 1, block_size, dtype)
            for _ in range(bench.pick(max(2, min(64, 400_000_000 // self.moved)), 1))
        ]
        tables = torch.randperm(rows * width, device=bench.device).to(torch.int32).view(rows, width)
        self.rows = Singles(tables, torch.full((rows,), context, device=bench.device))
        qkv = bench.randn(rows, 3, HEADS, HEAD_DIM)
        self.q, self.k, self.v = qkv.unbind(1)
        self.out = torch.empty(rows, HEADS, HEAD_DIM, dtype=bench.half, device=bench.device)

    def _filled(self, blocks: int, block_size: int, dtype: torch.dtype) -> Pages:
        made = Pages.make(blocks, HEADS, block_size, HEAD_DIM, dtype, self.bench.device)
        tokens = blocks * block_size
        k, v = (self.bench.randn(tokens, HEADS, HEAD_DIM) for _ in range(2))
        pages.append(made, k, v, torch.arange(tokens, device=self.bench.device))
        return made

    def timed(self, kernel: Decode) -> Numbers:
        def run() -> None:
            for layer in self.layers:
                kernel(self.q, self.k, self.v, self.out, layer, self.rows, HEAD_DIM**-0.5)

        return self.bench.timed(self.bench.capture(run), moved=self.moved, of=len(self.layers))


def prefill(bench: Bench) -> Iterator[Case]:
    """8192 tokens in prompts of 1024, and of 256; operations as causal attention needs them: 4 D for each pair."""
    fastest = Fastest()
    for dtype in bench.pick((torch.bfloat16, torch.int8), (torch.float16,)):
        for length in bench.pick((1024, 256), (64,)):
            rows = bench.pick(8192, 64) // length
            what = f"prefill, {rows} prompts of {length}, {str(dtype).removeprefix('torch.')}"
            cache = _Cache(bench, rows, length, dtype)
            for queries, keys, warps, stages in bench.pick(
                ((64, 64, 4, 2), (64, 64, 4, 3), (128, 64, 4, 2), (128, 64, 8, 2), (128, 64, 8, 3), (128, 128, 8, 2)),
                ((64, 64, 4, 2),),
            ):
                about = f"{queries} queries, {keys} keys, {warps} warps, {stages} stages"
                run = partial(_prefill_timed, bench, cache, length, Prefill(queries, keys, warps, stages))
                yield f"{what}: {about}", partial(fastest.of, what, about, run)
            yield f"fastest {what}", partial(fastest.told, what)
    q, k, v = (bench.randn(1, HEADS, bench.pick(8192, 64), HEAD_DIM) for _ in range(3))
    attention: Any = torch.nn.functional.scaled_dot_product_attention
    yield "torch's attention, 8 prompts of 1024", partial(_torch_timed, bench, attention, 8, q, k, v)


def _prefill_timed(bench: Bench, cache: _Cache, length: int, kernel: Prefill) -> Numbers:
    rows = cache.rows.block_tables.shape[0]
    facts = torch.tensor([(row * length, (row + 1) * length, 0, length) for row in range(rows)], device=bench.device)
    tiles = [(row, first) for row in range(rows) for first in range(0, length, kernel.queries)]
    given = Spans(facts, torch.tensor(tiles, device=bench.device), cache.rows.block_tables)
    q, out = (bench.randn(rows * length, HEADS, HEAD_DIM) for _ in range(2))
    run = bench.capture(partial(kernel, q, out, cache.layers[0], given, HEAD_DIM**-0.5))
    return bench.timed(run, flops=_operations(rows, length))


def _torch_timed(bench: Bench, attention: Any, rows: int, *given: Tensor) -> Numbers:
    length = given[0].shape[2] // rows
    q, k, v = (x.view(HEADS, rows, length, HEAD_DIM).transpose(0, 1) for x in given)
    run = bench.capture(partial(attention, q, k, v, is_causal=True))
    return bench.timed(run, flops=_operations(rows, length))


def _operations(rows: int, length: int) -> int:
    return rows * HEADS * 4 * HEAD_DIM * math.comb(length + 1, 2)


def appending(bench: Bench) -> Iterator[Case]:
    """What storing a prompt's keys and values costs beside its attention."""
    cache = _Cache(bench, bench.pick(8, 1), bench.pick(1024, 64), bench.half)
    tokens = bench.pick(8192, 64)
    k, v = (bench.randn(tokens, HEADS, HEAD_DIM) for _ in range(2))
    writes = torch.randperm(tokens, device=bench.device)
    run = bench.capture(partial(pages_triton.append, cache.layers[0], k, v, writes))
    yield f"append {tokens} tokens", lambda: bench.timed(run, moved=4 * k.numel() * k.element_size())


def fused(bench: Bench) -> Iterator[Case]:
    """Joined operations against the same in torch, in graphs."""
    for rows in bench.pick((1, 64, 256, 8192), (2,)):
        x, residual, weight, bias = (bench.randn(*size) for size in ((rows, 768), (rows, 768), (768,), (768,)))
        for name, run in (
            ("add_layer_norm, Triton", partial(fused_triton.add_layer_norm, x, residual, weight, bias, 1e-5)),
            ("add_layer_norm, torch", partial(norm.add_layer_norm, x, residual, weight, bias, 1e-5)),
        ):
            yield f"{name}, {rows} rows", partial(_twenty, bench, run)


def _twenty(bench: Bench, run: Callable[[], object]) -> Numbers:
    def many() -> None:
        for _ in range(20):
            run()

    return bench.timed(bench.capture(many), of=20)


TIMED: dict[str, Group] = {
    "read": read,
    "decode, 16 bits": lambda bench: decode(bench.half, bench),
    "decode, int8": partial(decode, torch.int8),
    "decode, float8": partial(decode, torch.float8_e4m3fn),
    "prefill": prefill,
    "appending": appending,
    "fused": fused,
}

if __name__ == "__main__":
    main("scripts.check_gpu", __doc__ or "", TIMED, PARITY, rehearsed=[name for name in TIMED if name != "read"])
