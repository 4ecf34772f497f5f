"""Devices: what the hardware says of itself, from files that a test can write."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from ridgeline.core.errors import ConfigError
from ridgeline.device import cpu
from ridgeline.device.base import Device
from ridgeline.device.choose import choose, missing_cuda_hint
from ridgeline.device.cpu import CpuDevice, cgroup_cpus, cgroup_free_bytes, default_threads, has_native_bfloat16


def test_the_cpu_is_a_device() -> None:
    device = CpuDevice(torch.float32)
    assert isinstance(device, Device)
    assert device.free_memory_bytes() > 0
    assert 1 <= device.threads == torch.get_num_threads() == default_threads()

    def work() -> None:
        raise AssertionError("on a CPU nothing is rehearsed")

    assert device.capture(work) is work
    with device.timer() as timer:
        device.synchronize()
    assert timer.elapsed_ns > 0


def test_activations_are_wider_where_16_bits_are_not_native() -> None:
    assert CpuDevice(torch.bfloat16, native_bfloat16=False).compute is torch.float32
    assert CpuDevice(torch.bfloat16, native_bfloat16=True).compute is torch.bfloat16
    assert CpuDevice(torch.float16, native_bfloat16=True).compute is torch.float32


def test_upload_takes_arrays_that_may_not_be_written() -> None:
    frozen = np.arange(3)
    frozen.flags.writeable = False
    (tensor,) = CpuDevice(torch.float32).upload([frozen])
    tensor[0] = 9
    assert frozen[0] == 0


def test_a_download_has_the_values_of_its_moment() -> None:
    device = choose("auto", "float32")
    tensor = torch.arange(6, device=device.torch_device).view(2, 3)
    download = device.download(tensor)
    tensor += 100
    later = device.download(tensor)
    assert later.result().tolist() == [[100, 101, 102], [103, 104, 105]]
    assert download.result().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_stamps_begin_at_their_first_mark_and_can_be_taken_again() -> None:
    device = choose("auto", "float32")
    stamps = device.stamps()
    assert stamps.read() == []
    matrix = torch.ones(256, 256, device=device.torch_device)
    for marks in (3, 2):
        for _ in range(marks):
            stamps.mark()
            matrix = matrix @ matrix / 256
        moments = stamps.read()
        assert len(moments) == marks
        assert moments[0] == 0
        assert all(later > earlier for earlier, later in itertools.pairwise(moments))
    assert stamps.read() == []


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_dtype_follows_the_hardware(native: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "has_native_bfloat16", lambda: native)
    assert choose("cpu", "auto").dtype is expected
    assert choose("cpu", "float16").dtype is torch.float16


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use a GPU here")
def test_cuda_without_cuda_is_refused() -> None:
    with pytest.raises(ConfigError, match="--device cuda"):
        choose("cuda", "auto")
    assert choose("auto", "auto").torch_device.type == "cpu"


def test_an_unused_gpu_is_pointed_out(tmp_path: Path) -> None:
    nowhere = tmp_path / "version"
    assert missing_cuda_hint("12.8", lambda _: "/usr/bin/nvidia-smi", nowhere) is None
    assert missing_cuda_hint(None, lambda _: None, nowhere) is None
    by_program = missing_cuda_hint(None, lambda _: "/usr/bin/nvidia-smi", nowhere)
    nowhere.write_text("NVRM version")
    by_driver = missing_cuda_hint(None, lambda _: None, nowhere)
    assert by_program is not None
    assert by_program == by_driver
    assert "pip install" in by_program


@pytest.mark.parametrize(
    ("text", "native"),
    [
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("processor : 0\nflags\t\t: fpu avx512_bf16 fma\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("no such line", False),
    ],
)
def test_native_bfloat16_is_read_from_the_flags(text: str, native: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert has_native_bfloat16(tmp_path / "cpuinfo") is native
    assert has_native_bfloat16(tmp_path / "absent") is False


def test_the_tightest_control_group_counts(tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    inner = root / "pod" / "box"
    inner.mkdir(parents=True)
    membership.write_text("1:cpu:/old\n0::/pod/box\n")
    assert cgroup_free_bytes(root, membership) is None
    for folder, limit, used in ((root, "max", "900"), (root / "pod", "1000", "400"), (inner, "5000", "300")):
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text(used + "\n")
    assert cgroup_free_bytes(root, membership) == 600
    (root / "pod" / "memory.stat").write_text("anon 350\ninactive_file 50\n")
    assert cgroup_free_bytes(root, membership) == 650
    assert cgroup_free_bytes(root, tmp_path / "absent") is None


def test_a_quota_is_whole_cpus(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    for text, cpus in (("max 100000", None), ("250000 100000", 2), ("50000 100000", 1)):
        quota.write_text(text)
        assert cgroup_cpus(quota) == cpus
    assert cgroup_cpus(tmp_path / "absent") is None


def test_threads_are_those_that_were_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        assert choose("cpu", "float32", threads=2).threads == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_has_no_threads_to_set() -> None:
    assert choose("cuda", "float32").threads is None
    with pytest.raises(ConfigError, match="--threads 2: a GPU computes here"):
        choose("cuda", "float32", threads=2)
