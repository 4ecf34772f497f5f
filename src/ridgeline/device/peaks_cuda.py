"""Peaks of an NVIDIA GPU: read rates of shared memory, L2 and memory, matrix products, launches, and the way from the
host. Knows the GPU's own clock (events); every probe may fail alone, and then becomes a note."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ridgeline.core.ceilings import Ceilings, Level, Rate
from ridgeline.core.errors import ConfigError
from ridgeline.device.cuda import CudaDevice, EventTimer
from ridgeline.device.datasheets import datasheet_of
from ridgeline.device.kernels_cuda import Kernels
from ridgeline.device.repeats import Budget, Run, rate, samples, spread

FULL = Budget(repeats=9, repeat_ns=20_000_000, memory_bytes=2 << 30, matrix_sizes=(4096, 8192))
MEMORY = "memory"
_COPY_BYTES = 256 << 20
_CHAIN = 1000

# Whatever torch, a driver or a compiler of another version raises: the other figures are still good.
_FAILURES = (RuntimeError, AttributeError, TypeError, ValueError, OSError, ImportError)


@dataclass(slots=True)
class Found:
    """What the probes have found so far."""

    levels: list[Level] = field(default_factory=list)
    matrix: dict[str, Rate] = field(default_factory=dict)
    rates: dict[str, Rate] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(
    device: CudaDevice, progress: Callable[[str, int, int], None], provenance: Mapping[str, Any], budget: Budget
) -> Ceilings:
    """Raises ConfigError where not even memory or a launch can be measured."""
    with torch.cuda.device(device.torch_device), torch.inference_mode():
        found = Found()
        run_all(_probes(device, budget, found), progress, found)
        about = torch.cuda.get_device_properties(device.torch_device)
    if not any(level.name == MEMORY for level in found.levels) or "launch" not in found.rates:
        raise ConfigError(f"{device.name}: its ceilings cannot be measured. {' '.join(found.notes)}")
    return Ceilings(
        device=device.name,
        threads=about.multi_processor_count,
        levels=tuple(found.levels),
        matrix=found.matrix,
        launch_ns=found.rates["launch"],
        graph_launch_ns=found.rates.get("graph"),
        to_device=found.rates.get("to_device"),
        datasheet=datasheet_of(device.name),
        notes=tuple(found.notes),
        provenance=dict(provenance),
    )


Probe = tuple[str, Callable[[], None]]


def _probes(device: CudaDevice, budget: Budget, found: Found) -> list[Probe]:
    """Levels come first and nearest first, which is the order that Ceilings wants."""
    reads = _Reads(device, budget, found)
    products = _Products(device, budget, found)
    formats = (torch.float32, torch.bfloat16, torch.float16)
    return [
        ("reading shared memory", reads.shared),
        ("reading L2", reads.l2),
        ("reading memory", reads.memory),
        *((f"{_name(kind)} products", lambda k=kind: products.plain(k)) for kind in formats),
        ("tfloat32 products", products.tfloat32),
        ("int8 products", products.int8),
        ("float8_e4m3fn products", products.float8),
        ("launches", lambda: _put(found, "launch", _launches(device, budget))),
        ("launches in a graph", lambda: _put(found, "graph", _graph_launches(device, budget))),
        ("copies to the device", lambda: _put(found, "to_device", _copies(device, budget))),
    ]


def run_all(probes: list[Probe], progress: Callable[[str, int, int], None], found: Found) -> None:
    for done, (what, probe) in enumerate(probes):
        progress(what, done, len(probes))
        try:
            probe()
        except _FAILURES as error:
            found.notes.append(f"{what[0].upper()}{what[1:]} could not be measured: {_first_line(error)}.")
        torch.cuda.empty_cache()
    progress("done", len(probes), len(probes))


class _Reads:
    """Levels of memory, by kernels compiled here; memory also by a reduction, where nothing can be compiled."""

    def __init__(self, device: CudaDevice, budget: Budget, found: Found) -> None:
        self._device, self._budget, self._found = device, budget, found
        self._about: Any = torch.cuda.get_device_properties(device.torch_device)
        self._kernels: Kernels | None = None

    def kernels(self) -> Kernels:
        """Compiled at the first use, so that what prevents it is the note of whoever needs it."""
        if self._kernels is None:
            self._kernels = Kernels(self._device.torch_device)
        return self._kernels

    def shared(self) -> None:
        """The capacity is that of all multiprocessors together: nothing larger can be near at once."""
        kernels = self.kernels()
        total = int(self._about.shared_memory_per_multiprocessor) * int(self._about.multi_processor_count)
        measured = rate(kernels.shared_bytes, _events(kernels.read_shared), self._budget)
        self._found.levels.append(Level("shared memory", total, measured))

    def l2(self) -> None:
        """With a quarter of it: on large GPUs each half of the cache may keep its own copy of what it reads."""
        kernels, capacity = self.kernels(), int(self._about.L2_cache_size)
        values = self._random(capacity // 4)
        measured = rate(values.nbytes, _events(lambda times: kernels.read(values, times)), self._budget)
        self._found.levels.append(Level("L2", capacity, measured))

    def memory(self) -> None:
        values = self._random(min(self._budget.memory_bytes, self._device.free_memory_bytes() // 2))
        measured = rate(values.nbytes, _events(self._reader(values)), self._budget)
        self._found.levels.append(Level(MEMORY, None, measured))

    def _reader(self, values: torch.Tensor) -> Callable[[int], None]:
        try:
            kernels = self.kernels()
            kernels.check(values)
        except _FAILURES as error:
            self._found.notes.append(
                "The read rate of memory is that of torch.sum, because no kernel made for it could be used "
                f"({_first_line(error)})."
            )
            floats = values.view(torch.float32).nan_to_num_()
            return _repeated(floats.sum)
        return lambda times: kernels.read(values, times)

    def _random(self, size: int) -> torch.Tensor:
        """int32, a whole number of 16-byte loads."""
        count = max(4096, size // 4 // 4096 * 4096)
        return torch.randint(-(2**31), 2**31 - 1, (count,), dtype=torch.int32, device=self._device.torch_device)


class _Products:
    """FLOP/s of square products; of the sizes that are tried, the best."""

    def __init__(self, device: CudaDevice, budget: Budget, found: Found) -> None:
        self._where, self._budget, self._found = device.torch_device, budget, found

    def plain(self, kind: torch.dtype) -> None:
        """float32 without TF32."""
        if kind is torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise RuntimeError("this GPU has no bfloat16 units")
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            self._best(_name(kind), lambda rows: self._floats(kind, rows))
        finally:
            torch.set_float32_matmul_precision(before)

    def tfloat32(self) -> None:
        if torch.cuda.get_device_capability(self._where) < (8, 0):
            raise RuntimeError("this GPU has no TF32 units")
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            self._best("tfloat32", lambda rows: self._floats(torch.float32, rows))
        finally:
            torch.set_float32_matmul_precision(before)

    def int8(self) -> None:
        def make(rows: int) -> Callable[[], object]:
            a, b = (torch.randint(-128, 128, (rows, rows), dtype=torch.int8, device=self._where) for _ in range(2))
            return lambda: torch._int_mm(a, b.t())  # the second by columns, as the library wants it

        self._best("int8", make)

    def float8(self) -> None:
        if torch.cuda.get_device_capability(self._where) < (8, 9):
            raise RuntimeError("this GPU has no 8-bit floating point units")
        one = torch.ones((), device=self._where)

        def make(rows: int) -> Callable[[], object]:
            a, b = (torch.randn((rows, rows), device=self._where).to(torch.float8_e4m3fn) for _ in range(2))
            return lambda: torch._scaled_mm(
                a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
            )

        self._best("float8_e4m3fn", make)

    def _floats(self, kind: torch.dtype, rows: int) -> Callable[[], object]:
        a, b = (torch.randn((rows, rows), device=self._where).to(kind) for _ in range(2))
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b.t(), out=out)

    def _best(self, name: str, make: Callable[[int], Callable[[], object]]) -> None:
        tried = [rate(2 * rows**3, _events(_repeated(make(rows))), self._budget) for rows in self._budget.matrix_sizes]
        self._found.matrix[name] = max(tried, key=lambda measured: measured.median)


def _events(work: Callable[[int], None]) -> Run:
    """By the GPU's own clock, from before the first of the work to after the last."""

    def run(times: int) -> int:
        with EventTimer() as timer:
            work(times)
        return timer.elapsed_ns

    return run


def _repeated(once: Callable[[], object]) -> Callable[[int], None]:
    def many(times: int) -> None:
        for _ in range(times):
            once()

    return many


def _launches(device: CudaDevice, budget: Budget) -> Rate:
    """Nanoseconds a kernel from Python, host and GPU together: the slower of the two sets the pace of a chain."""
    values = torch.randn(16, device=device.torch_device)

    def run(times: int) -> int:
        device.synchronize()
        begun = time.perf_counter_ns()
        for _ in range(times):
            values.add_(1.0)
        device.synchronize()
        return time.perf_counter_ns() - begun

    return spread(samples(run, budget))


def _graph_launches(device: CudaDevice, budget: Budget) -> Rate:
    """Nanoseconds a kernel inside a captured graph, each waiting for the one before it."""
    values = torch.randn(16, device=device.torch_device)
    side = torch.cuda.Stream(device.torch_device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is captured must have run before
        values.add_(1.0)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(_CHAIN):
            values.add_(1.0)

    def replay(times: int) -> None:
        for _ in range(times):
            graph.replay()

    return spread([ns / _CHAIN for ns in samples(_events(replay), budget)])


def _copies(device: CudaDevice, budget: Budget) -> Rate:
    """Bytes a second from pinned host memory."""
    host = torch.randint(0, 256, (_COPY_BYTES,), dtype=torch.uint8).pin_memory()
    there = torch.empty_like(host, device=device.torch_device)

    def copy(times: int) -> None:
        for _ in range(times):
            there.copy_(host, non_blocking=True)

    return rate(_COPY_BYTES, _events(copy), budget)


def _put(found: Found, name: str, measured: Rate) -> None:
    found.rates[name] = measured


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def _first_line(error: Exception) -> str:
    return (str(error).partition("\n")[0].strip() or type(error).__name__)[:200].rstrip(".")
