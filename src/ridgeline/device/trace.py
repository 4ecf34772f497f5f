"""Trace: what torch's profiler saw, as a file for a viewer and as tables. Knows names and times; knows no model.

A trace sees the thread that started it, and on a GPU every kernel. It costs time itself: what it shows is where time
goes, not how long a step takes without it.
"""

from __future__ import annotations

import contextlib
from bisect import bisect
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile, record_function

from ridgeline.core.errors import ConfigError

SUFFIX = ".json.gz"


class Ranges(Protocol):
    """Names a stretch of a thread's time for whoever looks on."""

    def range(self, name: str) -> AbstractContextManager[Any]: ...


class NoRanges:
    """Nobody looks on."""

    def range(self, _name: str) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


class TraceRanges:
    """For a Trace that runs."""

    def range(self, name: str) -> AbstractContextManager[Any]:
        return record_function(name)


class NvtxRanges:
    """For NVIDIA's profilers, nsys and ncu. Raises ConfigError where torch has no NVTX."""

    def __init__(self) -> None:
        if not has_nvtx():
            raise ConfigError(
                f"NVTX ranges need a torch that is built for CUDA, and {torch.__version__} is not; without a GPU take "
                "`ridgeline profile`, whose trace has the same names"
            )

    def range(self, name: str) -> AbstractContextManager[Any]:
        made: AbstractContextManager[Any] = torch.cuda.nvtx.range(name)
        return made


def has_nvtx() -> bool:
    return torch.version.cuda is not None and torch.cuda.is_available()


@dataclass(frozen=True, slots=True)
class Operation:
    """self_host_ns: on the traced thread, without what it called. device_ns: of its own kernels; None without a GPU."""

    name: str
    calls: int
    self_host_ns: int
    device_ns: int | None


@dataclass(frozen=True, slots=True)
class Range:
    """Of one name. host_ns: on the traced thread. device_ns: of the kernels launched inside; None without a GPU."""

    name: str
    calls: int
    host_ns: int
    device_ns: int | None


class Trace:
    """`start`, work, `stop`; then `write`, `operations` and `ranges`. Used once. shapes: of every operand too."""

    def __init__(self, *, shapes: bool = False) -> None:
        self._on_gpu = torch.cuda.is_available()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._on_gpu else [])]
        self._profile = profile(activities=activities, record_shapes=shapes)

    def start(self) -> None:
        """Raises RuntimeError where another profiler has the hardware."""
        self._profile.start()

    def stop(self) -> None:
        """Waits for the device."""
        try:
            if self._on_gpu:
                torch.cuda.synchronize()
        finally:  # a process that ends while torch's profiler runs crashes
            self._profile.stop()

    def write(self, path: Path) -> None:
        """As JSON for Perfetto and chrome://tracing. A reader sees the whole file or none. Raises OSError."""
        assert path.name.endswith(SUFFIX), path
        part = path.with_name(f".{path.name}")
        try:
            self._profile.export_chrome_trace(str(part))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def operations(self) -> list[Operation]:
        """Those first that cost most: on the device where there is one, otherwise on the host. Takes 50 us an event."""
        found = [
            Operation(
                average.key,
                average.count,
                round(average.self_cpu_time_total * 1000),
                round(average.self_device_time_total * 1000) if self._on_gpu else None,
            )
            for average in self._profile.key_averages()
            if average.device_type == DeviceType.CPU and not average.is_user_annotation
        ]
        return sorted(found, key=lambda row: (row.device_ns or 0, row.self_host_ns), reverse=True)

    def ranges(self, within: str | None = None) -> dict[str, Range]:
        """The ranges that were named, which must not lie in each other; within: see `sum_ranges`."""
        profiler = self._profile.profiler
        assert profiler is not None
        results = profiler.kineto_results
        assert results is not None, "stop() comes first"
        # The profiler's own list: to make torch's tables of it takes ten times as long, while a server waits.
        return sum_ranges(results.events(), within, on_gpu=self._on_gpu)


def sum_ranges(events: Iterable[Any], within: str | None, *, on_gpu: bool) -> dict[str, Range]:
    """Ranges by name. events: torch's, of a profiler that has stopped.

    A kernel belongs to the range in which its operation began, whenever the device ran it. within: only ranges that lie
    in ranges of this name; these are in the answer as well, with all that is in them.
    """
    spans, begun_ns, device = list[Span](), dict[int, int](), list[tuple[str, int, int]]()
    for event in events:
        operation = event.linked_correlation_id()
        if event.device_type() != DeviceType.CPU:
            device.append((event.name(), operation, event.duration_ns()))
        elif operation == 0:  # no call of the driver's interface: those have numbers of another kind
            begun_ns[event.correlation_id()] = event.start_ns()
            if event.is_user_annotation():
                spans.append((event.start_ns(), event.end_ns(), event.name()))
    names = {name for _, _, name in spans}  # on the device a range is shown as well, around its kernels
    kernels = [(begun_ns[by], took_ns) for name, by, took_ns in device if by in begun_ns and name not in names]
    inner = _Line(span for span in spans if span[2] != within)
    if within is None:
        return inner.totals(kernels, on_gpu)
    outer = _Line(span for span in spans if span[2] == within)
    inner = _Line(span for span in inner.spans if outer.at(span[0]) is not None)
    return inner.totals(kernels, on_gpu) | outer.totals(kernels, on_gpu)


Span = tuple[int, int, str]
"""begin, end, name; nanoseconds."""


class _Line:
    """Spans that do not overlap, in the order of time."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = sorted(spans)
        self._begins = [begin for begin, _, _ in self.spans]

    def at(self, ns: int) -> str | None:
        """The name of the span that holds this moment."""
        index = bisect(self._begins, ns) - 1
        return self.spans[index][2] if index >= 0 and ns < self.spans[index][1] else None

    def totals(self, kernels: list[tuple[int, int]], on_gpu: bool) -> dict[str, Range]:
        """kernels: when each one's operation began, and how long it took."""
        calls, host_ns, device_ns = Counter[str](), Counter[str](), Counter[str]()
        for begin, end, name in self.spans:
            calls[name] += 1
            host_ns[name] += end - begin
        for operation_ns, took_ns in kernels:
            if (name_of := self.at(operation_ns)) is not None:
                device_ns[name_of] += took_ns
        return {name: Range(name, calls[name], host_ns[name], device_ns[name] if on_gpu else None) for name in calls}
