"""`ridgeline counters`: the whole road through children and profilers, and what is told where they are missing."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ridgeline.build import EngineOrder
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.device.energy import Unmetered
from ridgeline.lab.counters.counted import measure_energy, ready
from ridgeline.lab.counters.counters import COLUMNS, WARM_STEPS, Case, check_room, counted_bytes, read_run
from ridgeline.lab.counters.counting import Launch, Plan, count
from ridgeline.lab.counters.ncu import locate
from ridgeline.lab.counters.view import cells_of
from ridgeline.lab.rig import Workbench
from tests.conftest import Command
from tests.lab.standins import STEP_CYCLES, environment, idle_child, put
from tests.tiny_gpt2 import write_tiny_gpt2

DECODE = Case("decode", 4, 20)


def counted(plan: Plan, launch: Launch) -> list[dict[str, Any]]:
    results, interrupted = count(plan, launch, lambda *_: None)
    assert not interrupted
    for case in results:
        for column in COLUMNS:  # nothing is invented, and nothing is missing without a reason
            reading = case["counters"][column.key]
            assert (reading["value"] is None) == bool(reading["reason"]), (column, reading)
    return results


def ridgeline(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ridgeline", "counters", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)


def test_the_command_counts_the_steps_alone(tmp_path: Path) -> None:
    put(tmp_path / "bin", "perf", recording="perf-intel.csv")
    model, file = write_tiny_gpt2(tmp_path / "tiny"), tmp_path / "run.json"
    flags = ("--model", str(model), "--device", "cpu", "--phase", "decode", "--batch", "2", "--context", "20")
    done = ridgeline(*flags, "--steps", "4", "--json", str(file), environment=environment(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    (case,) = read_run(file)["results"]
    counters = case["counters"]
    assert counters["cycles"]["value"] == STEP_CYCLES  # the stand-in saw one enable, one disable and four steps
    assert counters["instructions"]["value"] == 9.6e9 / 4
    assert counters["missed_bytes"]["value"] == 160e6 * 64 / 4
    assert counters["step_ns"]["value"] > 0
    assert "scaled up from 63 %" in counters["cache_misses"]["note"]
    assert "model runs on the CPU" in counters["dram_read_bytes"]["reason"]
    for words in ("cycles waiting for memory", "waiting for memory", "hypervisor", "Not counted"):
        assert words in done.stdout
    shown = ridgeline("--from", str(file), environment=environment(tmp_path / "bin"))
    assert shown.stdout == done.stdout


def test_a_perf_without_control_is_asked_twice(tmp_path: Path) -> None:
    put(tmp_path / "bin", "perf", "old", "perf-intel.csv")
    plan = Plan((DECODE,), 4, "perf")
    (case,) = counted(plan, Launch(idle_child("cpu"), environment(tmp_path / "bin")))
    assert case["counters"]["cycles"]["value"] == STEP_CYCLES  # what loading costs is in both runs
    assert "difference of two runs" in case["counters"]["cycles"]["note"]


@pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed")
def test_the_real_perf_counts_only_while_it_is_told_to() -> None:
    (case,) = counted(Plan((DECODE,), 4, "auto"), Launch(idle_child("cpu"), environment()))
    cpu = case["counters"]["cpu_ns"]
    if cpu["value"] is None:
        pytest.skip(cpu["reason"])
    assert 9e6 < cpu["value"] < 50e6  # 10 ms a step; with the start it would be 60 ms


def test_output_that_is_cut_off_is_a_reason_unless_the_tool_was_demanded(tmp_path: Path) -> None:
    put(tmp_path / "bin", "perf", "cut", "perf-intel.csv")
    launch = Launch(idle_child("cpu"), environment(tmp_path / "bin"))
    (case,) = counted(Plan((DECODE,), 2, "auto"), launch)
    assert "line 3: cut off" in case["counters"]["cycles"]["reason"]
    with pytest.raises(ConfigError, match="--tool perf: perf stat, line 3: cut off"):
        count(Plan((DECODE,), 2, "perf"), launch, lambda *_: None)


def test_ncu_is_asked_for_what_it_knows(tmp_path: Path) -> None:
    put(tmp_path / "bin", "ncu")
    plan = Plan((DECODE,), None, "ncu")
    results = counted(plan, Launch(idle_child("cuda"), environment(tmp_path / "bin")))
    (case,) = results
    counters = case["counters"]
    assert counters["dram_read_bytes"]["value"] == 4096 + 3_538_944  # two steps in the recording
    assert counters["l1_bytes"]["value"] == 9216 + 3_739_648
    assert counters["occupancy_pct"]["value"] == pytest.approx((12.5 * 9216 + 6.25 * 3072) / (9216 + 3072))
    assert counters["cycles"]["reason"] == "not asked for (--tool ncu)"
    stack = next(stack for stack in case["stacks"] if stack["source"] == "ncu")
    assert sum(stack["shares"].values()) == pytest.approx(1)
    assert [row["launches"] for row in case["kernels"]] == [1, 1]
    found = counted_bytes(results, "decode", 4)
    assert (found.bytes, found.reason) == (4096 + 3_538_944 + 1024, None)
    assert "ncu" in str(found.how)


@pytest.mark.parametrize(
    ("tool", "recording", "words"),
    [("perf", "perf-denied.txt", "perf_event_paranoid=1"), ("ncu", "", "NVreg_RestrictProfilingToAdminUsers=0")],
)
def test_no_permission_is_a_reason_or_an_error_if_demanded(
    tool: str, recording: str, words: str, tmp_path: Path
) -> None:
    put(tmp_path / "bin", "perf", "denied", "perf-denied.txt")  # in front of the real one
    put(tmp_path / "bin", tool, "denied", recording)
    launch = Launch(idle_child("cuda" if tool == "ncu" else "cpu"), environment(tmp_path / "bin"))
    with pytest.raises(ConfigError, match=rf"--tool {tool}: .*{words}"):
        count(Plan((DECODE,), 2, tool), launch, lambda *_: None)
    results = counted(Plan((DECODE,), 2, "auto"), launch)
    assert words in results[0]["counters"]["cycles" if tool == "perf" else "dram_read_bytes"]["reason"]
    found = counted_bytes(results, "decode", 4)
    assert found.bytes is None
    assert words in str(found.reason)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--tool", "ncu"), "--tool ncu: ncu is not on the PATH"),
        (("--tool", "perf"), "--tool perf: perf is not installed"),
        (("--tool", "vtune"), "--tool: 'vtune' is not one of auto, perf, ncu"),
        (("--phase", "both", "--batch", "1,x"), "--batch 1,x"),
        (("--phase", "middle"), "--phase: 'middle'"),
        (("--phase", "decode", "--context", "5000"), "--context 5000"),
        (("--phase", "decode", "--context", "10"), "--context 10: this model has room for 32 steps"),
        (("--from", "nowhere.json"), "nowhere.json"),
        (("--from", "nowhere.json", "--steps", "3"), "--steps does nothing beside it"),
    ],
)
def test_bad_input_is_a_sentence(
    flags: tuple[str, ...], words: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if "ncu" in flags and locate(None) is not None:
        pytest.skip("Nsight Compute is installed here")
    model = () if "--from" in flags else ("--model", str(write_tiny_gpt2(tmp_path / "tiny")))
    done = command("counters", *flags, *model)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_without_any_tool_the_table_says_why(tmp_path: Path) -> None:
    launch = Launch(idle_child("cpu"), environment() | {"PATH": str(tmp_path)})
    (case,) = counted(Plan((DECODE,), 2, "auto"), launch)
    assert "linux-perf" in case["counters"]["cycles"]["reason"]
    assert case["counters"]["joules"]["reason"] == "no counter"
    assert case["counters"]["step_ns"]["value"] == 5_000_000
    assert all(stack["shares"] is None and stack["reason"] for stack in case["stacks"])
    assert "linux-perf" in str(counted_bytes([case], "decode", 4).reason)
    assert "no counters of prefill at batch 1" in str(counted_bytes([case], "prefill", 1).reason)


def test_a_run_file_of_another_kind_or_damaged_is_refused(tmp_path: Path) -> None:
    launch = Launch(idle_child("cpu"), environment() | {"PATH": str(tmp_path)})
    good: dict[str, Any] = {
        "format": 1,
        "kind": "counters",
        "provenance": {},
        "config": {"model": "m"},
        "interrupted": False,
    }
    good["results"] = counted(Plan((DECODE,), 2, "auto"), launch)
    file = tmp_path / "run.json"

    def read(change: dict[str, Any]) -> dict[str, Any]:
        file.write_text(json.dumps(good | change))
        return read_run(file)

    assert read({}) == good
    with pytest.raises(ConfigError, match="format 2, and this version reads format 1"):
        read({"format": 2})
    with pytest.raises(ConfigError, match="kind 'ladder'"):
        read({"kind": "ladder"})
    for key, value in (("value", "many"), ("value", None), ("reason", 5)):
        broken = copy.deepcopy(good["results"])
        broken[0]["counters"]["cycles"] |= {"reason": None, key: value}
        with pytest.raises(ConfigError, match="damaged"):
            read({"results": broken})
    damaged: tuple[Any, ...] = ([{}], 5, [[]], None)
    for results in damaged:
        with pytest.raises(ConfigError, match="damaged"):
            read({"results": results})


class Steady:
    """10 W, told every tick."""

    source = "a steady counter"

    def __init__(self, tick_s: float) -> None:
        self.tick_s = tick_s

    def read(self) -> tuple[int, ...]:
        return (int(time.perf_counter() / self.tick_s),)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        return (after[0] - before[0]) * self.tick_s * 10


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    model = write_tiny_gpt2(tmp_path / "tiny")
    options = {"model": str(model), "device": "cpu", "dtype": "float32"}
    return Workbench.open(EngineOrder(Config.from_mapping(options), "tiny", model), lambda *_: None)


def test_energy_is_of_the_steps_and_not_told_where_the_counter_is_too_coarse(bench: Workbench) -> None:
    case = Case("decode", 2, 110)
    fine = measure_energy(bench, case, 200, Steady(0.001))
    assert fine["watts"] == pytest.approx(10, rel=0.3)
    assert 0 < fine["joules"] < 10
    assert fine["reason"] is None
    coarse = measure_energy(bench, case, 4, Steady(1000.0), limit_s=0.1)
    assert (coarse["joules"], coarse["watts"]) == (None, None)
    assert "--steps" in coarse["reason"]
    assert measure_energy(bench, case, 4, Unmetered("why"))["reason"] == "why"


def test_a_prompt_longer_than_the_model_is_refused(bench: Workbench) -> None:
    with (
        pytest.raises(ConfigError, match="--prefill 5000: this model has room for prompts of 254 tokens"),
        ready(bench, Case("prefill", 1, 5000), 1),
    ):
        pass
    with ready(bench, Case("prefill", 1, 254), 1) as step:
        step()


@pytest.mark.parametrize(("steps", "least", "most"), [(1, 3, 253), (32, 18, 237), (61, 33, 223)])
def test_contexts_have_room_to_the_edge_and_no_further(steps: int, least: int, most: int, bench: Workbench) -> None:
    for context in (least, most):
        with ready(bench, Case("decode", 1, context), steps) as step:
            for _ in range(WARM_STEPS + steps):
                step()
    for context in (least - 1, most + 1):
        with pytest.raises(ConfigError, match=f"with contexts of {least} to {most}"):
            check_room(Case("decode", 1, context), steps, bench.spec.max_positions)


def test_what_was_measured_before_ctrl_c_is_kept(tmp_path: Path) -> None:
    def progress(_: str, done: int, whole: int) -> None:
        if whole and done == 1:
            raise KeyboardInterrupt

    launch = Launch(idle_child("cpu"), environment() | {"PATH": str(tmp_path)})
    results, interrupted = count(Plan((DECODE, Case("prefill", 1, 20)), 2, "auto"), launch, progress)
    assert interrupted
    assert [case["phase"] for case in results] == ["decode"]


def test_a_bar_is_as_long_whatever_its_parts() -> None:
    for shares in ([1.0], [0.5, 0.5], [0.333, 0.333, 0.334], [0.001] * 9 + [0.991]):
        assert sum(cells_of(shares)) == 60
