"""Peaks: figures of this machine with tiny budgets, compiled kernels that are kept and trusted only where they may be,
caches as the kernel tells them, and datasheets by name. Nothing here depends on how quick the machine is."""

from __future__ import annotations

import ctypes
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from ridgeline.core.ceilings import Ceilings, Rate, from_json, to_json
from ridgeline.device import jit, peaks, peaks_cpu, peaks_cuda, reading
from ridgeline.device.caches import Cache, cores_first, data_caches
from ridgeline.device.cpu import CpuDevice
from ridgeline.device.datasheets import datasheet_of
from ridgeline.device.jit import CannotBuild, Compiler
from ridgeline.device.peaks_cpu import Rung, ladder
from ridgeline.device.reading import CReader, TorchReader
from ridgeline.device.repeats import Budget, samples

TINY = Budget(repeats=5, repeat_ns=50_000, memory_bytes=4 << 20, matrix_sizes=(32, 64))
CACHES = (Cache("L1", 32 << 10, 2), Cache("L2", 256 << 10, 2))
SOURCE = "int answer(void) { return 42; }\n"


def no_compiler() -> Compiler:
    return Compiler.find(lambda _name: None)


@pytest.fixture
def compiler() -> Compiler:
    try:
        return Compiler.find()
    except CannotBuild:
        pytest.skip("there is no C compiler")


def figures(found: Ceilings) -> list[Rate]:
    return [level.read for level in found.levels] + [*found.matrix.values(), found.launch_ns]


def test_a_cpu_has_ceilings_that_survive_a_file(tmp_path: Path, compiler: Compiler) -> None:
    told: list[tuple[str, int, int]] = []
    device = CpuDevice(torch.float32, threads=1)
    found = peaks.measure(device, tmp_path, lambda *news: told.append(news), {"cpu": "x"}, TINY)
    assert all(0 < figure.low <= figure.median <= figure.high for figure in figures(found))
    assert found.levels[-1].name == "memory"
    assert {"float32", "bfloat16"} <= set(found.matrix) | {note.split()[0] for note in found.notes}
    assert (found.threads, found.device, found.datasheet) == (1, device.name, None)
    assert from_json("x", json.loads(json.dumps(to_json(found)))) == found
    done, whole = [at for _, at, _ in told], {whole for _, _, whole in told}
    assert done == list(range(len(told)))
    assert whole == {done[-1]}
    assert (tmp_path / "kernels").is_dir()


def test_without_a_compiler_it_still_measures_and_says_what_to_install(tmp_path: Path) -> None:
    reader = reading.choose(1, tmp_path, no_compiler)
    assert isinstance(reader, TorchReader)
    device = CpuDevice(torch.float32, threads=1)
    found = peaks_cpu.measure(device, tmp_path, lambda *_: None, {}, TINY, reader, CACHES)
    assert [level.name for level in found.levels] == ["L1", "L2", "memory"]
    assert all(figure.low > 0 for figure in figures(found))
    assert any("no C compiler" in note and "apt install gcc" in note for note in found.notes)


def test_without_a_compiler_a_small_buffer_is_no_slower_than_memory() -> None:
    """A view that repeats a buffer can be summed in an order that takes a hundred times as long; ten is no accident."""
    with TorchReader("") as reader:
        near, far = (reader.rate(size, Budget(repeats=5, repeat_ns=2_000_000)) for size in (48 << 10, 16 << 20))
    assert near.high > far.median / 10


@pytest.mark.parametrize("threads", [1, 2])
def test_every_byte_is_read_by_every_thread(tmp_path: Path, compiler: Compiler, threads: int) -> None:
    """The reader itself compares what was added up in C with the sum of what it was given."""
    with reading.choose(threads, tmp_path) as reader:
        assert isinstance(reader, CReader)
        assert reader.notes == ()
        assert reader.rate(64 << 10, TINY).low > 0


def test_the_compiled_function_adds_up_what_it_reads(tmp_path: Path, compiler: Compiler) -> None:
    library = jit.load(reading.SOURCE, tmp_path, compiler)
    values = np.arange(8192, dtype=np.uint64)
    told = np.zeros(3, np.uint64)
    library.ridgeline_read.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)
    aligned = values if values.ctypes.data % 64 == 0 else _aligned(values)
    library.ridgeline_read(aligned.ctypes.data, aligned.nbytes, 3, told.ctypes.data)
    assert told[2] == 3 * values.sum()
    assert told[1] >= told[0] > 0


def _aligned(values: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    raw = np.empty(values.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + values.nbytes].view(np.uint64)
    copy[:] = values
    return copy


def test_a_kernel_is_compiled_once(tmp_path: Path, compiler: Compiler) -> None:
    assert jit.load(SOURCE, tmp_path, compiler).answer() == 42
    (made,) = (tmp_path / "kernels").glob("*.so")
    before = made.stat().st_mtime_ns, made.stat().st_ino
    assert jit.load(SOURCE, tmp_path, compiler).answer() == 42
    assert (made.stat().st_mtime_ns, made.stat().st_ino) == before
    jit.load(SOURCE.replace("42", "43"), tmp_path, compiler)
    assert len(list((tmp_path / "kernels").glob("*.so"))) == 2
    assert not list((tmp_path / "kernels").glob(".building*"))


@pytest.mark.parametrize("harm", ["cut", "other", "no digest", "writable", "link"])
def test_a_kernel_that_may_not_be_trusted_is_compiled_again(tmp_path: Path, compiler: Compiler, harm: str) -> None:
    jit.load(SOURCE, tmp_path, compiler)
    (made,) = (tmp_path / "kernels").glob("*.so")
    good = made.read_bytes()
    # A new file each time: the one that is loaded must not change under this process.
    made.unlink()
    if harm == "link":
        (tmp_path / "elsewhere.so").write_bytes(good)
        made.symlink_to(tmp_path / "elsewhere.so")
    else:
        made.write_bytes({"cut": good[:100], "other": b"something else"}.get(harm, good))
        made.chmod(0o777 if harm == "writable" else 0o700)
    if harm == "no digest":
        made.with_suffix(".sha256").unlink()
    assert jit.load(SOURCE, tmp_path, compiler).answer() == 42
    assert not made.is_symlink()
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_folder_that_others_can_write_keeps_nothing(tmp_path: Path, compiler: Compiler) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels").chmod(0o777)
    assert jit.load(SOURCE, tmp_path, compiler).answer() == 42
    assert list((tmp_path / "kernels").iterdir()) == []


def test_what_does_not_compile_and_where_nothing_can_be_kept_is_a_sentence(tmp_path: Path, compiler: Compiler) -> None:
    with pytest.raises(CannotBuild, match="cannot compile a shared library"):
        jit.load("this is no C", tmp_path, compiler)
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotBuild, match="RIDGELINE_CACHE_DIR"):
        jit.load(SOURCE, tmp_path / "file", compiler)
    with pytest.raises(CannotBuild, match="apt install gcc"):
        no_compiler()


def test_work_is_repeated_until_it_can_be_timed() -> None:
    asked: list[int] = []

    def run(times: int) -> int:
        asked.append(times)
        return 10 * times

    assert samples(run, Budget(repeats=5, repeat_ns=10_000)) == [10.0] * 5
    assert asked[-5:] == [1000] * 5
    assert samples(lambda times: 50_000 * times, Budget(repeats=2, repeat_ns=10_000)) == [50_000.0] * 5


def machine(root: Path, cpus: int, siblings: int) -> Path:
    """Files as Linux has them: L1 and L2 a core, one L3."""
    for cpu in range(cpus):
        first = cpu - cpu % siblings
        core = f"{first}-{first + siblings - 1}" if siblings > 1 else str(cpu)
        kinds = [("1", "Data", "48K", core), ("1", "Instruction", "32K", core), ("2", "Unified", "1024K", core)]
        for i, values in enumerate([*kinds, ("3", "Unified", "32M", f"0-{cpus - 1}")]):
            folder = root / f"cpu{cpu}" / "cache" / f"index{i}"
            folder.mkdir(parents=True)
            for name, value in zip(("level", "type", "size", "shared_cpu_list"), values, strict=True):
                (folder / name).write_text(value + "\n")
        (root / f"cpu{cpu}" / "topology").mkdir()
        (root / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(core + "\n")
    return root


def test_caches_are_private_or_shared(tmp_path: Path) -> None:
    caches = data_caches(machine(tmp_path, cpus=4, siblings=2), set(range(4)))
    assert caches == (Cache("L1", 48 << 10, 2), Cache("L2", 1 << 20, 2), Cache("L3", 32 << 20, 1))
    assert [cache.capacity_bytes(2) for cache in caches] == [96 << 10, 2 << 20, 32 << 20]
    assert [cache.capacity_bytes(1) for cache in caches] == [48 << 10, 1 << 20, 32 << 20]
    assert cores_first(tmp_path, set(range(4))) == [0, 2, 1, 3]
    assert data_caches(tmp_path / "nowhere", {0}) == ()
    assert cores_first(tmp_path / "nowhere", {0, 1}) == [0, 1]


def test_every_level_is_read_inside_itself_and_outside_the_one_before() -> None:
    rungs, notes = ladder((Cache("L1", 48 << 10, 2), Cache("L2", 1 << 20, 2), Cache("L3", 32 << 20, 1)), 2, 1 << 30)
    assert notes == []
    assert rungs == [
        Rung("L1", 96 << 10, 48 << 10),
        Rung("L2", 2 << 20, 1 << 20),
        Rung("L3", 32 << 20, 16 << 20),
        Rung("memory", None, 128 << 20),
    ]


def test_what_cannot_be_measured_well_is_said() -> None:
    rungs, notes = ladder((Cache("L2", 1 << 20, 32), Cache("L3", 36 << 20, 1)), 32, 1 << 30)
    assert [rung.name for rung in rungs] == ["L2", "memory"]
    assert "L3 was left out" in notes[0]
    rungs, notes = ladder((Cache("L3", 32 << 20, 1),), 2, 50 << 20)
    assert rungs[-1].total_bytes == 50 << 20
    assert "with more free memory" in notes[0]
    rungs, notes = ladder((), 2, 1 << 30)
    assert [rung.name for rung in rungs] == ["memory"]
    assert "does not say how large the caches are" in notes[0]


def test_figures_that_vary_are_told() -> None:
    assert peaks_cpu.disturbed({"L1": Rate(10.0, 9.0, 11.0)}) == []
    (note,) = peaks_cpu.disturbed({"L1": Rate(10.0, 9.0, 11.0), "float32": Rate(10.0, 5.0, 11.0)})
    assert "float32" in note
    assert "L1" not in note


@pytest.mark.parametrize(
    ("name", "sheet"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80 GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80 GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40 GB"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100 SXM2"),
        ("NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),
        ("NVIDIA L40", None),
        ("NVIDIA A10G", None),
        ("NVIDIA H20", None),
    ],
)
def test_a_datasheet_is_found_by_the_name_that_the_driver_gives(name: str, sheet: str | None) -> None:
    found = datasheet_of(name)
    assert (None if found is None else found.name) == sheet
    if found is not None:
        assert found.bytes_per_s > 1e11
        assert found.source
        assert found.flops_per_s.get("float16", 0) >= found.flops_per_s.get("float32", 0)


def test_threads_stay_where_they_are_only_while_they_measure(tmp_path: Path, compiler: Compiler) -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no affinity")
    before = os.sched_getaffinity(0)
    with reading.choose(2, tmp_path) as reader:
        reader.rate(64 << 10, TINY)
    assert os.sched_getaffinity(0) == before


def test_a_probe_of_a_gpu_that_fails_is_a_note_and_the_others_go_on() -> None:
    found, told = peaks_cuda.Found(), list[str]()

    def fails() -> None:
        raise RuntimeError("no such unit.\nand a long trace")

    def works() -> None:
        found.matrix["float32"] = Rate(1.0, 1.0, 1.0)

    probes = [("int8 products", fails), ("float32 products", works)]
    peaks_cuda.run_all(probes, lambda what, done, whole: told.append(f"{what} {done}/{whole}"), found)
    assert found.notes == ["Int8 products could not be measured: no such unit."]
    assert list(found.matrix) == ["float32"]
    assert told == ["int8 products 0/2", "float32 products 1/2", "done 2/2"]
