"""What a trace's events come to: host and device times of ranges, on events written by hand as a GPU gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.autograd import DeviceType  # type: ignore[attr-defined]

from ridgeline.device.trace import NoRanges, Range, sum_ranges

CPU, CUDA = DeviceType.CPU, DeviceType.CUDA


@dataclass(frozen=True)
class Event:
    """One of the profiler's. own: its number; linked: that of the operation that made it."""

    what: str
    begin: int
    end: int
    own: int = 0
    linked: int = 0
    where: Any = CPU
    annotation: bool = False

    def name(self) -> str:
        return self.what

    def start_ns(self) -> int:
        return self.begin

    def end_ns(self) -> int:
        return self.end

    def duration_ns(self) -> int:
        return self.end - self.begin

    def correlation_id(self) -> int:
        return self.own

    def linked_correlation_id(self) -> int:
        return self.linked

    def device_type(self) -> Any:
        return self.where

    def is_user_annotation(self) -> bool:
        return self.annotation


# Two steps; in the first two places. The device runs behind the host. The driver's calls have numbers of their own,
# which meet those of operations.
EVENTS = [
    Event("step", 100, 200, own=1, annotation=True),
    Event("head", 150, 190, own=4, annotation=True),
    Event("qkv", 110, 140, own=2, annotation=True),
    Event("aten::mm", 112, 138, own=3),
    Event("cudaLaunchKernel", 120, 130, own=4, linked=3),
    Event("aten::add", 142, 148, own=5),
    Event("cudaLaunchKernel", 143, 147, own=3, linked=5),
    Event("cudaLaunchKernel", 160, 170, own=9, linked=4),
    Event("gemm", 300, 350, own=4, linked=3, where=CUDA),
    Event("add", 350, 357, own=3, linked=5, where=CUDA),
    Event("a kernel without an operation", 360, 460, own=9, linked=4, where=CUDA),
    Event("qkv", 300, 350, own=2, linked=2, where=CUDA, annotation=True),
    Event("step", 300, 460, own=1, linked=1, where=CUDA, annotation=False),
    Event("step", 500, 600, own=20, annotation=True),
    Event("qkv", 510, 520, own=21, annotation=True),
    Event("qkv", 700, 720, own=30, annotation=True),  # in no step
    Event("memcpy", 730, 740, own=77, linked=0, where=CUDA),
]


def test_a_kernel_belongs_to_the_range_in_which_its_operation_began() -> None:
    assert sum_ranges(EVENTS, "step", on_gpu=True) == {
        "qkv": Range("qkv", 2, 40, 50),
        "head": Range("head", 1, 40, 100),
        "step": Range("step", 2, 200, 157),
    }


def test_without_a_surrounding_range_all_are_counted_and_without_a_gpu_there_is_no_device_time() -> None:
    flat = [event for event in EVENTS if event.what != "step"]
    assert sum_ranges(flat, None, on_gpu=True)["qkv"] == Range("qkv", 3, 60, 50)
    assert sum_ranges(flat, None, on_gpu=False)["qkv"].device_ns is None
    assert sum_ranges([], "step", on_gpu=True) == {}


def test_no_ranges_is_nothing() -> None:
    with NoRanges().range("qkv") as nothing:
        assert nothing is None
