"""Rows from loads, servers as children, and one small run of everything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest

from ridgeline.bench.fleet import Load
from ridgeline.bench.records import Outcome, Reply, Shape
from ridgeline.cli.environment import keyless
from ridgeline.core.config import Config
from ridgeline.core.errors import Unavailable
from ridgeline.lab.tradeoffs import tradeoffs
from ridgeline.lab.tradeoffs.children import Planned, serving
from ridgeline.lab.tradeoffs.experiments import Bench, Results, latency_row, padding_row
from ridgeline.lab.tradeoffs.footprint import parse_gpu, resident_bytes
from ridgeline.lab.tradeoffs.grid import FULL, QUICK, Grid, Setting
from ridgeline.lab.tradeoffs.tradeoffs import run
from ridgeline.menu import MENU
from tests.bench.hand import Screen, batch, timings
from tests.lab import recorded

CHILD = """
import subprocess, sys, time
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("something", file=sys.stderr)
print(f"listening on http://x:{below.pid}", file=sys.stderr, flush=True)
time.sleep(600)
"""


def answered(number: int, sent_s: float, planned_s: float, tokens: int = 4) -> Outcome:
    told = timings(of=batch(number // 2, size=2, steps=4, positions=100, padding=25))
    reply = Reply(prompt_tokens=4 * number, tokens=tokens, timings=told, event_ms=(10.0, 20.0, 30.0, 40.0))
    return Outcome(number, None, "measured", Shape("a", tokens), sent_s, 50.0, reply, planned_s=planned_s)


def test_every_policy_is_measured_with_flags_that_a_server_takes() -> None:
    for grid in (QUICK, FULL):
        assert {setting.batching for setting in grid.settings} == set(MENU["batching"])
        assert len(set(grid.settings)) == len(grid.settings)
        windows = {s.window_ms for s in grid.settings if s.batching == "dynamic"}
        assert windows == {0, 5, 20, 50, 100}
        for setting in grid.settings:
            names = [flag.removeprefix("--") for flag in setting.flags[::2]]
            values = [int(v) if v.isdigit() else v for v in setting.flags[1::2]]
            config = Config.from_mapping(dict(zip(names, values, strict=True)))
            assert config.batching.batching == setting.batching


def test_a_point_of_latency_against_throughput() -> None:
    load = Load([answered(i, sent_s=i / 10, planned_s=i / 10) for i in range(1, 5)])
    row = latency_row(Setting("dynamic", 20, 8), 10.0, load)
    assert row["setting"] == "dynamic, 20 ms, max 8"
    assert (row["ttft_p50_ms"], row["e2e_p50_ms"]) == (10.0, 50.0)
    assert row["tokens_per_s"] == pytest.approx(16 / 0.35)
    assert row["is_full"] is False
    slow = Load([answered(i, sent_s=i / 10, planned_s=i / 100) for i in range(1, 5)])
    assert latency_row(Setting("one"), 100.0, slow)["is_full"] is True


def test_padding_is_of_whole_batches() -> None:
    row = padding_row(4, 16, Load([answered(i, 0.0, 0.0) for i in (2, 3, 4, 5)]))
    assert (row["batches"], row["positions"], row["padding"], row["wasted"]) == (2, 200, 50, 0.25)
    assert row["prompt_mean"] == 14.0
    with pytest.raises(Unavailable, match="no batches"):
        padding_row(4, 16, Load([]))


def test_the_announced_plan_is_read() -> None:
    line = "memory: 22.91 GiB free; weights 14.6 MiB, workspace 164.1 MiB, KV cache 2.00 GiB = 16384 blocks"
    assert Planned.parse(["x", line]) == Planned(int(14.6 * 2**20), int(164.1 * 2**20), 2 << 30)
    assert Planned.parse(["x"]) is None


def test_gpu_memory_of_these_processes() -> None:
    assert parse_gpu("12, 500\n13, 20\n99, 7\nx, y\n14, [N/A]\n", {12, 13, 14}) == 520 << 20
    assert parse_gpu("", {12}) is None


def test_a_child_is_stopped_with_all_below_it() -> None:
    with serving([], os.environ, program=("-c", CHILD)) as served:
        below = int(served.url.rpartition(":")[2])
        assert psutil.pid_exists(below)
        assert resident_bytes(served.pid) > 0
    assert not psutil.pid_exists(served.pid)
    psutil.wait_procs([psutil.Process(below)] if psutil.pid_exists(below) else [], timeout=10)
    assert not psutil.pid_exists(below) or psutil.Process(below).status() == psutil.STATUS_ZOMBIE


def test_a_child_that_cannot_start_says_why() -> None:
    with (
        pytest.raises(Unavailable, match=r"ended: .*no such thing"),
        serving([], os.environ, program=("-c", "raise SystemExit('no such thing')")),
    ):
        pass


def test_a_failure_is_raised_after_what_was_measured_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(_bench: Bench, _grid: Grid, results: Results) -> None:
        results.padding += [recorded.padding(64, 0.0, 0.0), recorded.padding(124, 35.0, 0.4)]

    def fails(_bench: Bench, _grid: Grid, _results: Results) -> None:
        raise Unavailable("the server <ended>")

    for name, experiment in (("latency", measured), ("padding", fails)):
        monkeypatch.setattr(tradeoffs, name, experiment)
    with pytest.raises(Unavailable, match="<ended>"):
        run(QUICK, [], {}, tmp_path, 0, ["ridgeline"], Screen().console)
    told = json.loads((tmp_path / "tradeoffs.json").read_text())
    assert (len(told["results"]["padding"]), told["error"]) == (2, "the server <ended>")
    assert told["report"]["remarks"] == ["The run failed before its end: the server <ended>"]
    assert "failed before its end: the server \\u003cended>" in (tmp_path / "tradeoffs.html").read_text()


def test_the_servers_that_it_starts_ask_for_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIDGELINE_API_KEYS", "a-key")
    monkeypatch.setenv("RIDGELINE_ADMIN_KEYS", "another-key")
    monkeypatch.setenv("A_NAME", "kept")
    code = "import os, sys; sys.exit(f\"{any('_KEYS' in name for name in os.environ)} {os.environ['A_NAME']}\")"
    with pytest.raises(Unavailable, match="False kept"), serving([], keyless(), program=("-c", code)):
        pass


@pytest.mark.slow
def test_a_small_run_of_everything(tmp_path: Path) -> None:
    grid = Grid(
        limits=(), corner_limits=(), rates=(0.5,), load_s=0.5, spreads=((8, 8), (2, 30)), padding_requests=16,
        batches=(1,),
    )  # fmt: skip
    screen = Screen(width=200)
    assert run(grid, ["--model", "demo"], os.environ, tmp_path / "out", 0, ["ridgeline"], screen.console) == 0
    told = json.loads((tmp_path / "out" / "tradeoffs.json").read_text())
    results = told["results"]
    assert [row["setting"] for row in results["latency"]] == ["one"]
    assert all(row["answered"] == row["requests"] for row in results["latency"])
    level, spread = results["padding"]
    assert level["wasted"] == 0 < spread["wasted"]
    assert results["memory"][0]["loaded_bytes"] > results["memory"][0]["weights_bytes"]
    assert (tmp_path / "out" / "tradeoffs.html").stat().st_size > 1e6
    assert "Padding waste" in screen.text
