"""Reading: how many bytes a second all threads together read from buffers of a size. Knows no cache.

A small C function does it where there is a compiler. Without one torch sums the same values again and again, which
reaches what memory gives but not what the inner caches give.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ridgeline.core.ceilings import Rate
from ridgeline.device import jit
from ridgeline.device.caches import cores_first
from ridgeline.device.repeats import Budget, rate

_PATIENCE_S = 60
GRAIN = 4096
"""Buffers are so many bytes or a multiple: whole passes of the C function, and whole pages."""

# Eight sums of the widest vectors keep two loads a cycle busy and fit into the registers of every instruction set. The
# empty assembler line makes the compiler believe that memory changed, so that no pass can be left out.
SOURCE = r"""
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX2__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
#define SUMS 8
typedef uint64_t wide __attribute__((vector_size(WIDTH)));

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void ridgeline_read(const void *data, size_t bytes, size_t rounds, uint64_t *told) {
    const wide *values = data;
    const size_t count = bytes / sizeof(wide);
    wide sums[SUMS] = {{0}};
    told[0] = now_ns();
    for (size_t round = 0; round < rounds; round++) {
        for (size_t i = 0; i < count; i += SUMS)
            for (int k = 0; k < SUMS; k++) sums[k] += values[i + k];
        __asm__ volatile("" : : : "memory");
    }
    told[1] = now_ns();
    told[2] = 0;
    for (int k = 0; k < SUMS; k++)
        for (size_t lane = 0; lane < WIDTH / sizeof(uint64_t); lane++) told[2] += sums[k][lane];
}
"""


class Reader(Protocol):
    """notes: what is second-best about its figures."""

    notes: tuple[str, ...]

    def __enter__(self) -> Reader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def rate(self, total_bytes: int, budget: Budget) -> Rate:
        """Bytes a second of all threads together, over buffers that are `total_bytes` together."""
        ...


def choose(threads: int, cache: Path, find: Callable[[], jit.Compiler] = jit.Compiler.find) -> Reader:
    """In C if it can be compiled here."""
    try:
        return CReader(jit.load(SOURCE, cache, find()), threads)
    except jit.CannotBuild as error:
        return TorchReader(
            f"Read rates are those of torch.sum, and too low for the inner caches, because {error}; then run "
            "`ridgeline calibrate` again.",
        )


class CReader:
    """Every thread reads a buffer of its own, on a core of its own: left to itself the kernel may keep threads that
    wake each other on one core for as long as a measurement takes. The interpreter's lock is not held meanwhile."""

    notes: tuple[str, ...] = ()

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self._read: Any = library.ridgeline_read
        self._read.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)
        self._read.restype = None
        self._threads = threads

    def __enter__(self) -> CReader:
        cpus = cores_first()
        places = iter([cpus[i % len(cpus)] for i in range(self._threads)])
        self._pool = ThreadPoolExecutor(self._threads, initializer=lambda: _stay_on(next(places)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def rate(self, total_bytes: int, budget: Budget) -> Rate:
        each = max(GRAIN, total_bytes // self._threads // GRAIN * GRAIN)
        # Each thread fills its own, so that its pages lie where it runs.
        buffers = self._together(lambda i: _random(each, i))
        sums = [int(buffer.sum()) for buffer in buffers]

        def run(rounds: int) -> int:
            def one(i: int) -> NDArray[np.uint64]:
                told = np.zeros(3, np.uint64)
                self._read(buffers[i].ctypes.data, buffers[i].nbytes, rounds, told.ctypes.data)
                return told

            told = self._together(one)
            expected = [value * rounds % 2**64 for value in sums]
            assert [int(t[2]) for t in told] == expected, "the compiled function did not read what it was given"
            return int(max(t[1] for t in told) - min(t[0] for t in told))

        return rate(each * self._threads, run, budget)

    def _together(self, work: Callable[[int], NDArray[np.uint64]]) -> list[NDArray[np.uint64]]:
        """work(number of the thread) in every thread, begun at the same moment."""
        barrier = Barrier(self._threads)

        def begin(i: int) -> NDArray[np.uint64]:
            barrier.wait(_PATIENCE_S)
            return work(i)

        return list(self._pool.map(begin, range(self._threads)))


class TorchReader:
    """One call sums every row of a view that repeats one buffer; torch's threads divide the buffer among them. A sum of
    all rows into one number would not do: it takes the same value of every row before the next."""

    def __init__(self, note: str) -> None:
        self.notes: tuple[str, ...] = (note,)

    def __enter__(self) -> TorchReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was opened."""

    def rate(self, total_bytes: int, budget: Budget) -> Rate:
        size = max(GRAIN, total_bytes // GRAIN * GRAIN)
        values = torch.rand(size // 4, generator=torch.Generator().manual_seed(0))

        def run(rounds: int) -> int:
            repeated = values.expand(rounds, -1)
            begun = time.perf_counter_ns()
            repeated.sum(dim=1)
            return time.perf_counter_ns() - begun

        return rate(size, run, budget)


def _stay_on(cpu: int) -> None:
    """The calling thread alone. Where the system has no such thing, or forbids it, threads are where they are."""
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {cpu})


def _random(size: int, seed: int) -> NDArray[np.uint64]:
    """So many bytes, aligned to a page. A block is repeated: nothing looks at values that lie so far apart."""
    block = np.random.default_rng(seed).integers(0, 2**64, min(size, 1 << 20) // 8, dtype=np.uint64)
    raw = np.empty(size + GRAIN, np.uint8)
    start = -raw.ctypes.data % GRAIN
    values = raw[start : start + size].view(np.uint64)
    for at in range(0, values.size, block.size):
        part = values[at : at + block.size]
        part[:] = block[: part.size]
    return values
