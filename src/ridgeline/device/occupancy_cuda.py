"""Occupancy: what a GPU reads from memory with so many warps resident and so many loads under way in each thread.

Knows loads and grids; knows no model. The idea of the experiment is V. Volkov's (Better Performance at Lower Occupancy,
GTC 2010): latency is hidden by bytes in flight, and more loads a thread are as good as more threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ridgeline.device.cuda import CudaDevice, EventTimer
from ridgeline.device.repeats import Budget, rate

LOADS = (1, 4, 8)
WARPS = (4, 8, 16, 32, 64)
_WARP, _BLOCK_WARPS, _LOAD_BYTES = 32, 4, 16
_BYTES = 1 << 30  # of the buffer: many times an L2
_BUDGET = Budget(repeats=5, repeat_ns=10_000_000)

# All loads of a round are issued before the first is used; the next round's wait for it. The assembler's loads cannot
# be left out, and `unroll 1` forbids the compiler to overlap rounds, which would put more under way than the name says.
SOURCE = r"""
extern "C" __global__ void __launch_bounds__(THREADS)
read_LOADS(const uint4* values, unsigned* sums, int count) {
    const int first = blockIdx.x * THREADS + threadIdx.x, step = gridDim.x * THREADS;
    unsigned sum = 0;
    #pragma unroll 1
    for (int i = first; i < count; i += LOADS * step) {
        unsigned x[LOADS], y[LOADS], z[LOADS], w[LOADS];
        #pragma unroll
        for (int k = 0; k < LOADS; k++) {
            const int at = i + k * step < count ? i + k * step : first;
            asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(x[k]), "=r"(y[k]), "=r"(z[k]), "=r"(w[k]) : "l"(values + at));
        }
        #pragma unroll
        for (int k = 0; k < LOADS; k++) sum += x[k] + y[k] + z[k] + w[k];
    }
    sums[first] = sum;
}
"""


@dataclass(frozen=True, slots=True)
class Occupied:
    """warps: resident on each multiprocessor. loads: of 16 bytes under way in each thread. bytes_per_s: read so."""

    warps: int
    loads: int
    bytes_per_s: float

    @property
    def flying_bytes(self) -> int:
        """Under way on a multiprocessor at most."""
        return self.warps * _WARP * self.loads * _LOAD_BYTES


def source(loads: int) -> str:
    return SOURCE.replace("LOADS", str(loads)).replace("THREADS", str(_WARP * _BLOCK_WARPS))


def occupancies(device: CudaDevice) -> list[Occupied]:
    """Every number of warps with every number of loads. Raises whatever torch raises where it cannot compile."""
    compile_kernel: Any = torch.cuda._compile_kernel
    where = device.torch_device
    about: Any = torch.cuda.get_device_properties(where)
    resident = int(about.max_threads_per_multi_processor) // _WARP
    values = torch.randint(-(2**31), 2**31 - 1, (_BYTES // 4,), dtype=torch.int32, device=where)
    sums = torch.zeros(int(about.multi_processor_count) * resident * _WARP, dtype=torch.int32, device=where)
    found = []
    with torch.cuda.device(where):
        for loads in LOADS:
            kernel = compile_kernel(source(loads), f"read_{loads}")
            for warps in WARPS:
                if warps > resident:
                    continue
                # Blocks are spread evenly, so a grid of so many for each leaves that many warps on each.
                grid = (int(about.multi_processor_count) * warps // _BLOCK_WARPS, 1, 1)

                def run(times: int, kernel: Any = kernel, grid: tuple[int, int, int] = grid) -> int:
                    with EventTimer() as timer:
                        for _ in range(times):
                            kernel(grid=grid, block=(_WARP * _BLOCK_WARPS, 1, 1), args=[values, sums, _BYTES // 16])
                    return timer.elapsed_ns

                found.append(Occupied(warps, loads, rate(_BYTES, run, _BUDGET).median))
    return found
