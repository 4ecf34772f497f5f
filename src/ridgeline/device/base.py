"""Device: the hardware that a model runs on. Knows memory, clocks and number formats; knows no model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

BYTES_OF = {torch.float32: 4, torch.bfloat16: 2, torch.float16: 2}
"""Bytes of a value, for the formats that weights and caches may have."""


class Timer(Protocol):
    """`with device.timer() as t: ...` and then `t.elapsed_ns`, measured by the device's own clock."""

    def __enter__(self) -> Timer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def elapsed_ns(self) -> int: ...


class Stamps(Protocol):
    """Moments of the device's own clock, as cheap as it has them: many in a step, read when it is over."""

    def mark(self) -> None:
        """Note the moment at which the device is done with all that was launched before."""
        ...

    def read(self) -> list[int]:
        """Nanoseconds from the first mark to every mark, the first included; then begin anew. Waits for the device."""
        ...


class Download(Protocol):
    """A tensor on its way to the host."""

    def result(self) -> NDArray[Any]:
        """Its values as they were when the download was asked for. Waits for what made them, not for later work."""
        ...


class Arrived:
    """A download that was over when it was asked for."""

    def __init__(self, array: NDArray[np.generic]) -> None:
        self._array = array

    def result(self) -> NDArray[Any]:
        return self._array


@runtime_checkable
class Device(Protocol):
    """What the rooms above may ask of the hardware.

    dtype: number format of weights and KV cache. compute: format of activations; wider than dtype where the hardware
    does not compute in dtype natively. kv_share_percent: how much of the free memory the KV cache may take by default.
    step_tokens: tokens of a step from which on more bring no throughput, only waiting. captures: whether `capture`
    saves the host anything. threads: of the CPU that compute; None where the CPU does not.
    """

    name: str
    torch_device: torch.device
    dtype: torch.dtype
    compute: torch.dtype
    native_bfloat16: bool
    kv_share_percent: int
    step_tokens: int
    captures: bool

    @property
    def threads(self) -> int | None: ...
    def free_memory_bytes(self) -> int:
        """Memory that this process can really get now."""
        ...

    def synchronize(self) -> None:
        """Wait until everything that was launched is done."""
        ...

    def timer(self) -> Timer: ...

    def stamps(self) -> Stamps: ...
    def profiled_range(self) -> AbstractContextManager[None]:
        """What a profiler that was told to wait looks at; nothing where no profiler waits."""
        ...

    def capture(self, fn: Callable[[], None]) -> Callable[[], None]:
        """A version of fn that replays its work with less host time; fn itself where there is no such thing.

        fn is called a few times first. It works on tensors that stay where they are, and waits for nothing. Replays run
        one after another, in the order of the other work, and what they need besides those tensors they share.
        """
        ...

    def compiling_beside(self, calls: Sequence[Callable[[], object]]) -> AbstractContextManager[None]:
        """While the body runs, calls are made too, several at once, for the kernels that a first call compiles. Nothing
        is called where none is compiled then.

        A call that fails is passed over: it fails again where its result is needed.
        """
        ...

    def upload(self, arrays: Sequence[Any]) -> list[torch.Tensor]:
        """Integer arrays of one type to the device in one copy. They may alias the arrays: do not write those again."""
        ...

    def download(self, tensor: torch.Tensor) -> Download:
        """Begin to copy a tensor to the host, without waiting for the device."""
        ...


class HostTimer:
    """The host's monotonic clock: exact where work is done when the call returns."""

    def __init__(self) -> None:
        self._start_ns = self._end_ns = 0

    def __enter__(self) -> HostTimer:
        self._start_ns = time.perf_counter_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_ns = time.perf_counter_ns()

    @property
    def elapsed_ns(self) -> int:
        return self._end_ns - self._start_ns


class HostStamps:
    """Stamps of the host's monotonic clock: exact where work is done when the call returns."""

    def __init__(self) -> None:
        self._marks: list[int] = []

    def mark(self) -> None:
        self._marks.append(time.perf_counter_ns())

    def read(self) -> list[int]:
        marks, self._marks = self._marks, []
        return [mark - marks[0] for mark in marks]
