"""The CPU as a device. Knows threads, control groups and instruction sets; knows no model."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import torch

from ridgeline.device.base import Arrived, Download, HostStamps, HostTimer, Stamps, Timer


class CpuDevice:
    """Activations are float32 unless the CPU multiplies bfloat16 itself: emulation is 5 to 7 times slower."""

    kv_share_percent = 50  # Other programs live in this memory too.
    step_tokens = 512
    captures = False

    def __init__(self, dtype: torch.dtype, threads: int | None = None, native_bfloat16: bool | None = None) -> None:
        self.native_bfloat16 = has_native_bfloat16() if native_bfloat16 is None else native_bfloat16
        self.dtype = dtype
        self.compute = dtype if dtype is torch.bfloat16 and self.native_bfloat16 else torch.float32
        self.torch_device = torch.device("cpu")
        self.threads = default_threads() if threads is None else threads
        torch.set_num_threads(self.threads)
        self.name = f"{_model_name()}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def free_memory_bytes(self) -> int:
        free = int(psutil.virtual_memory().available)
        limit = cgroup_free_bytes(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
        return free if limit is None else min(free, limit)

    def synchronize(self) -> None:
        """Nothing is ever in flight."""

    def timer(self) -> Timer:
        return HostTimer()

    def stamps(self) -> Stamps:
        return HostStamps()

    def profiled_range(self) -> AbstractContextManager[None]:
        return nullcontext()

    def capture(self, fn: Callable[[], None]) -> Callable[[], None]:
        return fn

    def compiling_beside(self, calls: Sequence[Callable[[], object]]) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def upload(self, arrays: Sequence[Any]) -> list[torch.Tensor]:
        # torch shares memory with arrays, and warns about those that it must not write.
        return [torch.from_numpy(array if array.flags.writeable else array.copy()) for array in arrays]

    def download(self, tensor: torch.Tensor) -> Download:
        return Arrived(tensor.numpy().copy())  # a copy, because the tensor may be written again


def default_threads() -> int:
    """Physical cores that this process may use: the siblings of a core share its multipliers and gain nothing.

    torch's own number comes first because it honours OMP_NUM_THREADS.
    """
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    bounds = [torch.get_num_threads(), physical]
    if hasattr(os, "sched_getaffinity"):
        bounds.append(len(os.sched_getaffinity(0)))
    quota = cgroup_cpus(Path("/sys/fs/cgroup/cpu.max"))
    if quota is not None:
        bounds.append(quota)
    return max(1, min(bounds))


def has_native_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies bfloat16 itself (AVX512_BF16, AMX or Arm's BF16); False where it cannot be seen."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return False
    for line in text.splitlines():
        key, _, flags = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags.split())
    return False


def cgroup_free_bytes(root: Path, membership: Path) -> int | None:
    """What the tightest enclosing control group (version 2) still grants; None if none limits memory.

    Clean file pages count as free: the kernel gives them back before it refuses anything.
    """
    free: list[int] = []
    for folder in _groups(root, membership):
        limit = _number(folder / "memory.max")
        used = _number(folder / "memory.current")
        if limit is not None and used is not None:
            free.append(max(0, limit - used + _reclaimable(folder / "memory.stat")))
    return min(free) if free else None


def cgroup_cpus(cpu_max: Path) -> int | None:
    """Whole CPUs that the control group's quota amounts to, at least one; None without a quota."""
    try:
        quota, period = cpu_max.read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None


def _groups(root: Path, membership: Path) -> list[Path]:
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return [root]
    inner = next((line[3:] for line in lines if line.startswith("0::")), "/")
    parts = [part for part in inner.split("/") if part not in ("", "..")]
    return [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # ValueError: the word "max"
        return None


def _reclaimable(stat: Path) -> int:
    try:
        fields = dict(line.split() for line in stat.read_text().splitlines())
        return int(fields.get("inactive_file", 0))
    except (OSError, ValueError):
        return 0


def _model_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"
