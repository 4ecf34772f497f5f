"""Kernels that probe_gpu.py times: small, and of no use elsewhere."""

from __future__ import annotations

import triton
import triton.language as tl

try:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

    HAS_PDL = True
except ImportError:  # a Triton without programmatic dependent launch: the probe says so and times the rest
    gdc_launch_dependents = gdc_wait = None
    HAS_PDL = False


@triton.jit
def gemv(x, w, y, d_in, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """y = W x, ROWS of W a program. w: [d_out, d_in]."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside = columns < d_in
    weights = tl.load(w + rows[:, None] * d_in + columns[None, :], mask=inside[None, :], other=0.0)
    values = tl.load(x + columns, mask=inside, other=0.0)
    total = tl.sum(weights.to(tl.float32) * values.to(tl.float32)[None, :], 1)
    tl.store(y + rows, total.to(y.dtype.element_ty))


@triton.jit
def gemv_pdl(x, w, y, d_in, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Starts while the kernel before it ends, but reads nothing until that one is done."""
    gdc_wait()
    gdc_launch_dependents()
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside = columns < d_in
    weights = tl.load(w + rows[:, None] * d_in + columns[None, :], mask=inside[None, :], other=0.0)
    values = tl.load(x + columns, mask=inside, other=0.0)
    total = tl.sum(weights.to(tl.float32) * values.to(tl.float32)[None, :], 1)
    tl.store(y + rows, total.to(y.dtype.element_ty))


@triton.jit
def gemv_prefetch(x, w, y, d_in, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Its weights are on their way into registers before it waits for x. The next kernel may start at once: it waits
    for the whole of this one, which waits for the one before."""
    gdc_launch_dependents()
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside = columns < d_in
    weights = tl.load(w + rows[:, None] * d_in + columns[None, :], mask=inside[None, :], other=0.0)
    gdc_wait()
    values = tl.load(x + columns, mask=inside, other=0.0)
    total = tl.sum(weights.to(tl.float32) * values.to(tl.float32)[None, :], 1)
    tl.store(y + rows, total.to(y.dtype.element_ty))


@triton.jit
def attend_pages(
    q, cache, table, out, context, width, scale,
    page_stride, part_stride, head_stride, token_stride,
    BLOCK: tl.constexpr, DIM: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One query over whole pages of BLOCK tokens, a program a row and head. The strides say how a page lies."""
    row, head = tl.program_id(0), tl.program_id(1)
    heads = tl.num_programs(1)
    tokens, dims = tl.arange(0, BLOCK), tl.arange(0, DIM)
    query = tl.load(q + (row * heads + head) * DIM + dims).to(tl.float32) * scale
    most, total = -float("inf"), 0.0
    mixed = tl.zeros([DIM], tl.float32)
    inside = head * head_stride + tokens[:, None] * token_stride + dims[None, :]
    for nth in tl.range(0, context // BLOCK, num_stages=STAGES):
        page = tl.load(table + row * width + nth).to(tl.int64) * page_stride
        keys = tl.load(cache + page + inside).to(tl.float32)
        values = tl.load(cache + page + part_stride + inside).to(tl.float32)
        scores = tl.sum(keys * query[None, :], 1)
        higher = tl.maximum(most, tl.max(scores, 0))
        weights = tl.exp(scores - higher)
        shrink = tl.exp(most - higher)
        total = total * shrink + tl.sum(weights, 0)
        mixed = mixed * shrink + tl.sum(weights[:, None] * values, 0)
        most = higher
    tl.store(out + (row * heads + head) * DIM + dims, (mixed / total).to(out.dtype.element_ty))


BARRIERS = r"""
// Every wait gives up after so many looks, so that a mistake cannot hold the device for ever.
#define LIMIT (1 << 22)

extern "C" __global__ void by_counter(unsigned* counter, unsigned* failed, int rounds) {
    for (int round = 1; round <= rounds; ++round) {
        __syncthreads();
        if (threadIdx.x == 0) {
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" :: "l"(counter) : "memory");
            unsigned seen = 0;
            int looks = 0;
            while (seen < (unsigned)round * gridDim.x && ++looks < LIMIT)
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
            if (looks >= LIMIT) *failed = 1;
        }
        __syncthreads();
    }
}

// Each block has a word of its own, and each thread of a block looks at the word of another: no atomics.
extern "C" __global__ void by_flags(unsigned* flags, unsigned* failed, int rounds) {
    for (int round = 1; round <= rounds; ++round) {
        __syncthreads();
        if (threadIdx.x == 0)
            asm volatile("st.release.gpu.global.u32 [%0], %1;" :: "l"(flags + blockIdx.x), "r"(round) : "memory");
        if (threadIdx.x < gridDim.x) {
            unsigned seen = 0;
            int looks = 0;
            while (seen < (unsigned)round && ++looks < LIMIT)
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(flags + threadIdx.x) : "memory");
            if (looks >= LIMIT) *failed = 1;
        }
        __syncthreads();
    }
}

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) by_cluster(unsigned* done, unsigned* failed, int rounds) {
    for (int round = 1; round <= rounds; ++round) {
        asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");
        asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
    }
    if (threadIdx.x == 0) done[blockIdx.x] = rounds;
}
"""
