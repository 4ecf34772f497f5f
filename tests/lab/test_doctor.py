"""`ridgeline doctor`: what it concludes from files and programs that a test puts there, and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ridgeline.attending import native_sources
from ridgeline.cli import app
from ridgeline.core.ceilings import to_json
from ridgeline.core.findings import Finding
from ridgeline.core.records import write_run
from ridgeline.device import jit
from ridgeline.device.choose import choose
from ridgeline.device.jit import CPP, CannotBuild, Compiler
from ridgeline.hub.access import Access
from ridgeline.lab.doctor.doctor import Doctor, examine, ncu_state, perf_state, show
from ridgeline.lab.doctor.profilers import driver_state, nsys_state
from ridgeline.lab.doctor.surroundings import Surroundings
from ridgeline.lab.machine import ceilings_path
from tests.bench.hand import Screen
from tests.core.made_up import ceilings

COUNTED = "1234567,,cycles:u,1000000,100.00,,\n"
NOT_SUPPORTED = "<not supported>,,cycles:u,0,100.00,,\n"
FORBIDDEN = "Error:\nAccess to performance monitoring and observability operations is limited.\n"


def around(
    root: Path, programs: Sequence[str] = (), said: str | None = "", files: dict[str, str] | None = None
) -> Surroundings:
    for name, text in (files or {}).items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Surroundings(root, lambda name: f"/opt/{name}" if name in programs else None, lambda _command: said)


@pytest.mark.parametrize(
    ("said", "level", "state", "remedy"),
    [
        (COUNTED, "2", "ok", "-"),
        (NOT_SUPPORTED, "1", "blocked", "-cpu host,pmu=on"),
        (FORBIDDEN, "4", "blocked", "sudo sysctl kernel.perf_event_paranoid=1"),
        (None, "2", "blocked", "reinstall"),
    ],
)
def test_perf_counts_or_says_why_not(tmp_path: Path, said: str | None, level: str, state: str, remedy: str) -> None:
    found = perf_state(around(tmp_path, ["perf"], said, {"/proc/sys/kernel/perf_event_paranoid": f"{level}\n"}))
    assert found.state == state
    assert remedy in found.remedy
    assert said is None or f"perf_event_paranoid={level}" in found.detail


def test_perf_that_is_not_there_can_be_installed(tmp_path: Path) -> None:
    found = perf_state(around(tmp_path))
    assert (found.state, "apt install" in found.remedy) == ("missing", True)


@pytest.mark.parametrize(
    ("parameter", "capabilities", "state"),
    [
        ("RmProfilingAdminOnly: 1", "0000000000000000", "blocked"),
        ("NVreg_RestrictProfilingToAdminUsers: 1", "00000000a80425fb", "blocked"),  # root in an ordinary container
        ("RmProfilingAdminOnly: 1", "000001ffffffffff", "ok"),
        ("RmProfilingAdminOnly: 0", "0000000000000000", "ok"),
    ],
)
def test_ncu_needs_permission_from_the_driver(tmp_path: Path, parameter: str, capabilities: str, state: str) -> None:
    files = {
        "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX 580.95.05\n",
        "/proc/driver/nvidia/params": f"ResmanDebugLevel: 4294967295\n{parameter}\n",
        "/proc/self/status": f"Name:\tpython\nCapEff:\t{capabilities}\n",
    }
    found = ncu_state(around(tmp_path, ["ncu"], "", files))
    assert found.state == state
    assert ("NVreg_RestrictProfilingToAdminUsers=0" in found.remedy) == (state == "blocked")


def test_without_a_gpu_there_is_nothing_to_do(tmp_path: Path) -> None:
    for found in (ncu_state(around(tmp_path)), nsys_state(around(tmp_path)), driver_state(around(tmp_path))):
        assert (found.state, found.remedy) == ("missing", "nothing to do without an NVIDIA GPU")
    assert ncu_state(around(tmp_path, ["ncu"])).state == "blocked"


def test_with_a_gpu_the_tools_that_are_missing_are_named(tmp_path: Path) -> None:
    files = {"/proc/driver/nvidia/version": "NVRM\n"}
    named = around(tmp_path, ["nvidia-smi", "nsys"], "NVIDIA H100 80GB HBM3, 580.95.05\n", files)
    assert driver_state(named) == Finding("NVIDIA driver", "ok", "NVIDIA H100 80GB HBM3, 580.95.05")
    assert (nsys_state(named).state, nsys_state(named).detail) == ("ok", "/opt/nsys")
    assert "Nsight Compute" in ncu_state(named).remedy
    hidden = around(tmp_path, ["nvidia-smi"], "No devices were found\n", files)
    assert (driver_state(hidden).state, "--gpus all" in driver_state(hidden).remedy) == ("blocked", True)


def test_every_look_answers_on_a_bare_machine(tmp_path: Path) -> None:
    found = {
        finding.name: finding for finding in examine(Doctor(around(tmp_path), tmp_path, Access(cache_dir=tmp_path)))
    }
    assert found["C compiler"].state == "missing"
    assert (found["C++ compiler"].state, found["C++ compiler"].remedy) == ("missing", "apt install g++")
    assert "many times slower" in found["C++ compiler"].detail
    assert (found["CPU kernels"].state, found["CPU kernels"].remedy) == ("missing", "see C++ compiler")
    assert found["CPU instructions"].state == "missing"
    assert (found["ceilings"].state, found["ceilings"].remedy) == ("missing", "ridgeline calibrate")
    assert found["hub cache"].state == "missing"
    assert torch.__version__ in found["torch"].detail
    for finding in found.values():
        assert finding.detail
        assert finding.state == "ok" or finding.remedy


def test_kernels_are_compiled_or_will_be(tmp_path: Path) -> None:
    """Where they are kept is looked at, and nothing is made there."""
    try:
        compiler = Compiler.find(language=CPP)
    except CannotBuild as error:
        pytest.skip(str(error))
    doctor = Doctor(Surroundings(tmp_path), tmp_path / "cache", Access(cache_dir=tmp_path))
    before = {finding.name: finding for finding in examine(doctor)}
    assert compiler.version in before["C++ compiler"].detail
    assert before["CPU kernels"].state == "missing"
    assert "the first start" in before["CPU kernels"].remedy
    assert not (tmp_path / "cache").exists()
    for source in native_sources().values():
        jit.load(source, tmp_path / "cache", compiler)
    after = {finding.name: finding for finding in examine(doctor)}["CPU kernels"]
    assert after.state == "ok"
    assert str(tmp_path / "cache") in after.detail


def test_instructions_are_read_from_the_kernel(tmp_path: Path) -> None:
    files = {"/proc/cpuinfo": "processor : 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni amx_int8\n"}
    found = examine(Doctor(around(tmp_path, files=files), tmp_path, Access(cache_dir=tmp_path)))
    assert Finding("CPU instructions", "ok", "AVX2, AVX-512, bfloat16, VNNI, AMX int8") in found


def test_ceilings_that_were_measured_are_found_and_broken_ones_named(tmp_path: Path) -> None:
    path = ceilings_path(tmp_path, choose("auto", "auto"))
    doctor = Doctor(around(tmp_path), tmp_path, Access(cache_dir=tmp_path))
    write_run(path, to_json(ceilings()))
    assert {finding.name: finding for finding in examine(doctor)}["ceilings"].detail.startswith("measured today")
    path.write_text("{}")
    broken = {finding.name: finding for finding in examine(doctor)}["ceilings"]
    assert (broken.state, broken.remedy) == ("blocked", "ridgeline calibrate")


def test_the_table_loses_nothing_in_a_narrow_terminal() -> None:
    screen = Screen(width=80)
    show(
        screen.console, [Finding("perf [x]", "blocked", "a " * 60 + "end", "sudo sysctl kernel.perf_event_paranoid=1")]
    )
    words = "".join(screen.text.split())
    assert "perf[x]" in words
    assert words.count("a") >= 60
    assert all(len(line) <= 80 for line in screen.lines)


def test_the_command_prints_and_writes_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_CACHE_DIR", str(tmp_path / "cache"))
    done = CliRunner().invoke(app, ["doctor", "--json", str(tmp_path / "doctor.json")])
    assert done.exit_code == 0
    told = json.loads((tmp_path / "doctor.json").read_text())
    assert (told["format"], told["kind"], told["provenance"]["cores"]) == (1, "doctor", told["provenance"]["cores"])
    for finding in told["results"]:
        assert finding["name"] in done.output
        assert finding["state"] in ("ok", "missing", "blocked")
    assert not (tmp_path / "cache").exists(), "a look changes nothing"


def test_it_can_be_imported_without_torch() -> None:
    code = "import ridgeline.lab.doctor.doctor, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
