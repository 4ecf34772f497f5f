"""An NVIDIA GPU as a device. Knows streams, events and its memory; knows no model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ridgeline.device.base import Download, Stamps, Timer


class CudaDevice:
    kv_share_percent = 90
    step_tokens = 2048
    threads = None
    captures = True

    def __init__(self, dtype: torch.dtype) -> None:
        self.torch_device = torch.device("cuda", torch.cuda.current_device())
        self.native_bfloat16 = has_native_bfloat16()
        self.dtype = dtype
        self.compute = dtype
        self.name = torch.cuda.get_device_name(self.torch_device)
        self._capturing = Capturing(self.torch_device)

    def free_memory_bytes(self) -> int:
        # What torch has cached but does not use is free to this process as well.
        free, _ = torch.cuda.mem_get_info(self.torch_device)
        cached = torch.cuda.memory_reserved(self.torch_device) - torch.cuda.memory_allocated(self.torch_device)
        return int(free) + int(cached)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch_device)

    def timer(self) -> Timer:
        return EventTimer()

    def stamps(self) -> Stamps:
        return EventStamps()

    @contextmanager
    def profiled_range(self) -> Iterator[None]:
        """cudaProfilerStart to cudaProfilerStop, with nothing in flight at either."""
        self.synchronize()
        torch.cuda.profiler.start()  # type: ignore[no-untyped-call]
        try:
            yield
            self.synchronize()
        finally:
            torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]

    def capture(self, fn: Callable[[], None]) -> Callable[[], None]:
        return self._capturing.graph(fn)

    @contextmanager
    def compiling_beside(self, calls: Sequence[Callable[[], object]]) -> Iterator[None]:
        if calls:
            self._tried(calls[0])  # alone, because it loads the compiler and its driver
        with ThreadPoolExecutor(min(COMPILERS, os.cpu_count() or 1), "compile") as pool:
            for call in calls[1:]:
                pool.submit(copy_context().run, self._tried, call)  # what counts for the caller counts there too
            yield
        self.synchronize()

    def _tried(self, call: Callable[[], object]) -> None:
        with suppress(Exception), torch.inference_mode(), torch.cuda.device(self.torch_device):
            call()

    def upload(self, arrays: Sequence[Any]) -> list[torch.Tensor]:
        packed = torch.from_numpy(np.concatenate([array.ravel() for array in arrays])).pin_memory()
        parts = torch.split(packed.to(self.torch_device, non_blocking=True), [array.size for array in arrays])
        return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]

    def download(self, tensor: torch.Tensor) -> Download:
        return PinnedCopy(tensor)


COMPILERS = 8
"""Threads. Triton 3.6 lets others run while it compiles: in 0.8 s for one kernel none waited for more than 20 ms."""

WARM_UP_CALLS = 3
"""Before a capture: kernels are loaded and compiled, libraries choose algorithms and take their workspace."""


class Capturing:
    """Graphs that share one pool of memory, because no two of them ever run at once: what one computed on the way the
    next may write over."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side: torch.cuda.Stream | None = None
        self._pool: Any = None

    def graph(self, fn: Callable[[], None]) -> Callable[[], None]:
        if self._side is None:
            self._side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()
        # All captures are made on one stream, because a pool's memory is given out by stream; calls before them too,
        # because a library's workspace belongs to a stream.
        self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side):
            for _ in range(WARM_UP_CALLS):
                fn()
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile; entering waits for it.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"):
            fn()
        torch.cuda.current_stream(self._device).wait_stream(self._side)
        return graph.replay


class PinnedCopy:
    """A copy into pinned memory, which runs in the stream's order while the host goes on, and an event after it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._done.record()

    def result(self) -> NDArray[Any]:
        self._done.synchronize()
        return self._host.numpy()


class EventTimer:
    """Time between two events on the current stream; reading it waits for the second."""

    def __init__(self) -> None:
        self._start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def __enter__(self) -> EventTimer:
        self._start.record()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.record()

    @property
    def elapsed_ns(self) -> int:
        self._end.synchronize()
        return int(self._start.elapsed_time(self._end) * 1e6)


class EventStamps:
    """Events on the current stream, kept for the next step, because making one costs more than recording it.

    A moment is when the stream gets there. So where the host is too slow, the GPU's waiting belongs to what it waits
    for: a region's time is what its kernels and the launching of them really took.
    """

    def __init__(self) -> None:
        self._events: list[torch.cuda.Event] = []
        self._used = 0

    def mark(self) -> None:
        if self._used == len(self._events):
            self._events.append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        self._events[self._used].record()
        self._used += 1

    def read(self) -> list[int]:
        used, self._used = self._events[: self._used], 0
        if not used:
            return []
        used[-1].synchronize()
        first = used[0]
        return [0, *(int(first.elapsed_time(event) * 1e6) for event in used[1:])]


def has_native_bfloat16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
