"""What a GPU can do for small steps: bandwidth, chains of small products, barriers, cache layouts, products, graphs.

    PYTHONPATH=src python -m scripts.probe_gpu --out run.json
    PYTHONPATH=src TRITON_INTERPRET=1 python -m scripts.probe_gpu --dry-run

The numbers decide how a step is built: what a boundary between kernels costs, and what hides it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from scripts import probe_triton as kernels
from scripts.gpu_bench import Bench, Case, Numbers, main
from torch import Tensor

LINEARS = {"qkv": (768, 2304), "attn_out": (768, 768), "mlp_in": (768, 3072), "mlp_out": (3072, 768),
           "head": (768, 50257), "padded head": (768, 50304)}  # fmt: skip
CHAIN = 64
ROUNDS = 1000


def read(bench: Bench) -> Iterator[Case]:
    """The first is what shares of bandwidth divide by."""
    from ridgeline.device.kernels_cuda import Kernels

    reader = None if bench.dry else Kernels(bench.device)

    def case(size: int, flush: bool, run: Callable[[Tensor], object]) -> Numbers:
        values = torch.randint(-(2**30), 2**30, (bench.pick(size, 4096) // 4,), dtype=torch.int32, device=bench.device)
        return bench.timed(partial(run, values), moved=values.numel() * 4, flush=flush)

    def whole(values: Tensor) -> None:
        if reader is None:
            torch.sum(values)
        else:
            reader.read(values, 1)

    yield "read 5 GB", partial(case, 5_000_000_000, False, whole)
    for size in (247_000_000, 77_000_000):
        yield f"read {size // 1_000_000} MB, L2 flushed", partial(case, size, True, whole)
        yield f"again {size // 1_000_000} MB, L2 as it was left", partial(case, size, False, whole)
    yield "sum of 5 GB by torch", partial(case, 5_000_000_000, False, partial(torch.sum, dtype=torch.int32))


def chain(bench: Bench) -> Iterator[Case]:
    """Each product needs the one before; the weights are larger than L2."""
    length, square = bench.pick(CHAIN, 4), bench.pick(768, 32)
    inner = 4 * square

    def weight(d_out: int, d_in: int) -> Tensor:
        return bench.randn(d_out, d_in).div_(d_in**0.5)

    squares = [weight(square, square) for _ in range(length)]
    pairs = [weight(inner, square) if nth % 2 == 0 else weight(square, inner) for nth in range(length)]
    for name, weights in (("768x768", squares), ("768x3072 and back", pairs)):
        moved = sum(weight.numel() * weight.element_size() for weight in weights)
        expected = _chain_of_torch(bench, weights)
        for how, make in _chains(bench):
            yield f"{length} GEMVs {name}, {how}", partial(_chain_case, bench, weights, moved, expected, make)


def _chain_of_torch(bench: Bench, weights: list[Tensor]) -> Tensor:
    x = _first(bench, weights)
    for weight in weights:
        x = torch.mv(weight.float(), x.float()).to(x.dtype)
    return x


def _first(bench: Bench, weights: list[Tensor]) -> Tensor:
    return torch.linspace(-1, 1, weights[0].shape[1], device=bench.device).to(bench.half)


def _chains(bench: Bench) -> Iterator[tuple[str, Callable[[Tensor, Tensor, Tensor], object]]]:
    yield "torch.mv", lambda w, x, y: torch.mv(w, x, out=y)
    yield "linear", lambda w, x, y: torch.mm(x[None], w.t(), out=y[None])
    for rows, warps in bench.pick(((4, 4), (8, 4), (8, 8)), ((4, 4),)):
        yield f"Triton, {rows} rows, {warps} warps", partial(_gemv, kernels.gemv, rows, warps, {})
        if kernels.HAS_PDL and not bench.dry:
            pdl = {"launch_pdl": True}
            yield f"Triton with PDL, {rows} rows, {warps} warps", partial(_gemv, kernels.gemv_pdl, rows, warps, pdl)
            yield (f"Triton with PDL and prefetch, {rows} rows, {warps} warps",
                   partial(_gemv, kernels.gemv_prefetch, rows, warps, pdl))  # fmt: skip


def _gemv(kernel: object, rows: int, warps: int, extra: dict[str, bool], w: Tensor, x: Tensor, y: Tensor) -> None:
    block = 1 << (w.shape[1] - 1).bit_length()
    kernel[(w.shape[0] // rows,)](x, w, y, w.shape[1], ROWS=rows, BLOCK=block, num_warps=warps, **extra)  # type: ignore[index]


def _chain_case(
    bench: Bench, weights: list[Tensor], moved: int, expected: Tensor, one: Callable[[Tensor, Tensor, Tensor], object]
) -> Numbers:
    xs = [_first(bench, weights), *(torch.empty(w.shape[0], device=bench.device, dtype=bench.half) for w in weights)]

    def run() -> None:
        for nth, weight in enumerate(weights):
            one(weight, xs[nth], xs[nth + 1])

    replay = bench.capture(run)
    xs[-1].fill_(float("nan"))
    replay()
    error = float((xs[-1].float() - expected.float()).norm() / expected.float().norm())
    found = bench.timed(replay, moved=moved // len(weights), of=len(weights))
    return found | {"error norm": round(error, 5)}


def barrier(bench: Bench) -> Iterator[Case]:
    """One block an SM, so that all are there; microseconds a barrier, over a kernel of two lengths."""
    if bench.dry:
        yield "barriers", lambda: {"skipped": "CUDA alone"}
        return
    sms = torch.cuda.get_device_properties(bench.device).multi_processor_count
    for name in ("by_counter", "by_flags"):
        yield f"grid barrier {name} of {sms} blocks", partial(_barrier_case, bench, name, sms, kernels.BARRIERS)
    for size in (2, 4, 8):
        source = kernels.BARRIERS.replace("CLUSTER", str(size))
        blocks = sms // size * size
        yield f"cluster barrier of {size} blocks", partial(_barrier_case, bench, "by_cluster", blocks, source)


def _barrier_case(bench: Bench, name: str, blocks: int, source: str) -> Numbers:
    kernel = torch.cuda._compile_kernel(source.replace("CLUSTER", "2"), name)
    words = torch.zeros(256, dtype=torch.int32, device=bench.device)
    failed = torch.zeros(1, dtype=torch.int32, device=bench.device)

    def run(rounds: int) -> None:
        kernel(grid=(blocks, 1, 1), block=(256, 1, 1), args=[words, failed, rounds])

    # Counters start from zero each time; the memset lies outside of the time.
    once, twice = (statistics.median(bench.us(partial(run, rounds), words.zero_)) for rounds in (ROUNDS, 2 * ROUNDS))
    if int(failed):
        return {"error": "a wait gave up: the blocks were not all there"}
    return {"us": round((twice - once) / ROUNDS, 4), f"us of {ROUNDS} with the launch": round(once, 1)}


def layouts(bench: Bench) -> Iterator[Case]:
    """The same kernel over pages in which the tokens of a head lie together, and in which the heads of a token do."""
    rows, context, heads, dim = bench.pick((256, 512, 12, 64), (2, 64, 2, 32))
    for block in bench.pick((64, 16), (16,)):
        pages = rows * context // block
        cache = bench.randn(pages, 2, heads, block, dim)
        table = torch.randperm(pages, device=bench.device).to(torch.int32).view(rows, -1)
        size = heads * block * dim
        strides = {"head-major": (2 * size, size, block * dim, dim), "token-major": (2 * size, size, dim, heads * dim)}
        for name, stride in strides.items():
            for warps, stages in bench.pick(((2, 2), (4, 2), (4, 3), (4, 4), (8, 3)), ((4, 2),)):
                yield (f"attention, {name}, pages of {block}, {warps} warps, {stages} stages",
                       partial(_layout_case, bench, cache, table, stride, (rows, context, heads, dim), block, warps,
                               stages))  # fmt: skip


def _layout_case(
    bench: Bench, cache: Tensor, table: Tensor, stride: tuple[int, int, int, int], shape: tuple[int, int, int, int],
    block: int, warps: int, stages: int,
) -> Numbers:  # fmt: skip
    rows, context, heads, dim = shape
    q, out = bench.randn(rows, heads, dim), bench.randn(rows, heads, dim)

    def run() -> None:
        kernels.attend_pages[(rows, heads)](
            q, cache, table, out, context, table.shape[1], dim**-0.5, *stride,
            BLOCK=block, DIM=dim, STAGES=stages, num_warps=warps,
        )  # fmt: skip

    return bench.timed(bench.capture(run), moved=cache.numel() * cache.element_size())


def products(bench: Bench) -> Iterator[Case]:
    """In graphs, over as many copies of the weight as exceed L2. The first two are the peaks."""
    size = bench.pick(8192, 64)
    formats = ("bf16", "fp8")
    for kind in formats:
        yield f"{kind} {size} cubed", partial(_product_case, bench, kind, size, size, size, 1)
    for kind in formats:
        for name, (d_in, d_out) in LINEARS.items():
            for rows in bench.pick((1, 8, 32, 64, 128, 256), (8,)):
                copies = bench.pick(max(2, min(64, 200_000_000 // (d_in * d_out))), 1)
                width = -(-d_out // 16) * 16 if kind == "fp8" else d_out
                shape = bench.pick((rows, d_in, width), (16, 32, 64))
                yield f"{kind} {name} {d_in}x{width}, {rows} rows", partial(_product_case, bench, kind, *shape, copies)


def _product_case(bench: Bench, kind: str, rows: int, d_in: int, d_out: int, copies: int) -> Numbers:
    x, weights = bench.randn(rows, d_in), [bench.randn(d_out, d_in) / d_in**0.5 for _ in range(copies)]
    if kind == "bf16":
        outs = [torch.empty(rows, d_out, device=bench.device, dtype=bench.half) for _ in weights]

        def run() -> None:
            for weight, out in zip(weights, outs, strict=True):
                torch.mm(x, weight.t(), out=out)

        moved = d_in * d_out * 2
    else:
        one = torch.ones((), device=bench.device)
        small, smalls = x.to(torch.float8_e4m3fn), [weight.to(torch.float8_e4m3fn).t() for weight in weights]
        weights.clear()

        def run() -> None:
            for weight in smalls:
                torch._scaled_mm(small, weight, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)

        moved = d_in * d_out
    return bench.timed(bench.capture(run), moved=moved, flops=2 * rows * d_in * d_out, of=copies)


def graphs(bench: Bench) -> Iterator[Case]:
    """What a node costs the device, and a replay the host."""
    for size, what in ((768, "one block"), (768 * 256, "many blocks")):
        for nodes in (26, 63, 130):
            yield f"graph of {nodes} nodes, {what}", partial(_graph_case, bench, nodes, size)


def _graph_case(bench: Bench, nodes: int, size: int) -> Numbers:
    x = bench.randn(size)

    def run() -> None:
        for _ in range(nodes):
            x.mul_(-1)

    replay = bench.capture(run)
    found = bench.timed(replay)
    host = []
    for _ in range(bench.pick(50, 2)):
        begun = time.perf_counter()
        replay()
        host.append((time.perf_counter() - begun) * 1e6)
        if not bench.dry:
            torch.cuda.synchronize()
    return found | {
        "us a node": round(found["us"] / nodes, 3),
        "host us a replay": round(sorted(host)[len(host) // 2], 2),
    }


GROUPS = {
    "read": read, "products": products, "chain": chain, "layouts": layouts, "graphs": graphs, "barrier": barrier,
}  # fmt: skip

if __name__ == "__main__":
    main("scripts.probe_gpu", __doc__ or "", GROUPS, {}, rehearsed=("chain", "layouts"))
