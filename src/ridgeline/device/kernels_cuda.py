"""Kernels that read: CUDA C++ compiled by NVRTC, which torch brings along. Knows loads; knows no clock."""

from __future__ import annotations

from typing import Any

import torch

_THREADS = 256
_BLOCKS_EACH = 4
_SHARED_WORDS = 1536
_SHARED_PASSES = 512

# The loads are assembler, so that no compiler can leave one out; `cg` reads from L2 and leaves L1 aside. Of shared
# memory they are volatile, because the assembler keeps plain ones for the next pass (an H100 then "read" 120 TB/s).
# What was read is added up and written, one word a thread.
SOURCE = (
    r"""
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_EACH)
read_global(const uint4* values, unsigned* sums, int count, int passes) {
    const int first = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
    unsigned a = 0, b = 0, c = 0, d = 0;
    for (int pass = 0; pass < passes; pass++) {
        #pragma unroll 4
        for (int i = first; i < count; i += step) {
            unsigned x, y, z, w;
            asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(x), "=r"(y), "=r"(z), "=r"(w) : "l"(values + i));
            a += x; b += y; c += z; d += w;
        }
    }
    sums[first] = a + b + c + d;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_EACH)
read_shared(unsigned* sums, int passes) {
    __shared__ uint4 words[SHARED_WORDS];
    for (int i = threadIdx.x; i < SHARED_WORDS; i += blockDim.x)
        words[i] = make_uint4(i, i * 3 + 1, i * 5 + 2, i * 7 + 3);
    __syncthreads();
    const unsigned base = (unsigned)__cvta_generic_to_shared(words) + 16 * threadIdx.x;
    unsigned a = 0, b = 0, c = 0, d = 0;
    for (int pass = 0; pass < passes; pass++) {
        #pragma unroll
        for (int i = 0; i < SHARED_WORDS / THREADS; i++) {
            unsigned x, y, z, w;
            asm volatile("ld.volatile.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(x), "=r"(y), "=r"(z), "=r"(w) : "r"(base + i * 16 * THREADS));
            a += x; b += y; c += z; d += w;
        }
    }
    sums[blockIdx.x * blockDim.x + threadIdx.x] = a + b + c + d;
}
""".replace("SHARED_WORDS", str(_SHARED_WORDS))
    .replace("THREADS", str(_THREADS))
    .replace("BLOCKS_EACH", str(_BLOCKS_EACH))
)


class Kernels:
    """Raises whatever torch raises where it cannot compile."""

    def __init__(self, where: torch.device) -> None:
        about: Any = torch.cuda.get_device_properties(where)
        # No more than are resident at once, so that all start together and end together.
        self._grid = (int(about.multi_processor_count) * _BLOCKS_EACH, 1, 1)
        self._sums = torch.zeros(self._grid[0] * _THREADS, dtype=torch.int32, device=where)
        compile_kernel: Any = torch.cuda._compile_kernel
        self._global = compile_kernel(SOURCE, "read_global")
        self._shared = compile_kernel(SOURCE, "read_shared")

    @property
    def shared_bytes(self) -> int:
        """What `read_shared(1)` reads."""
        return self._grid[0] * _SHARED_WORDS * 16 * _SHARED_PASSES

    def read(self, values: torch.Tensor, times: int) -> None:
        """The whole tensor, so many times. values: int32, a multiple of four."""
        self._global(grid=self._grid, block=(_THREADS, 1, 1), args=[values, self._sums, values.numel() // 4, times])

    def read_shared(self, times: int) -> None:
        self._shared(grid=self._grid, block=(_THREADS, 1, 1), args=[self._sums, _SHARED_PASSES * times])

    def check(self, values: torch.Tensor) -> None:
        """Raises RuntimeError unless every value is read, each pass anew."""
        self.read(values, 3)
        told, expected = int(self._sums.sum(dtype=torch.int64)), 3 * int(values.sum(dtype=torch.int64))
        if (told - expected) % 2**32:
            raise RuntimeError("the kernel did not read what it was given")
