"""Operations timed alone: every row and version is there, wrong ones are seen, and verdicts follow the intervals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ridgeline.core.ceilings import to_json
from ridgeline.core.errors import ConfigError
from ridgeline.core.records import write_run
from ridgeline.device.choose import choose
from ridgeline.device.cpu import CpuDevice
from ridgeline.lab.machine import ceilings_path
from ridgeline.lab.micro.micro import Order, run, verdict
from ridgeline.lab.micro.table import cells, sentences
from ridgeline.ops.table import OPS
from tests.lab.hand_ceilings import machine

Row = dict[str, Any]


def quiet(_what: str, _done: int, _whole: int) -> None:
    pass


def small(name: str, **changes: Any) -> Any:
    """The operation with one small size."""
    op = next(op for op in OPS if op.name == name)
    return replace(op, sizes=op.shapes[:1], **changes)


def timed(*ops: Any, dtype: torch.dtype = torch.float32, native: bool = True) -> list[Row]:
    device = CpuDevice(dtype, threads=1, native_bfloat16=native)
    rows: list[Row] = run(Order(ops, 5, 3), device, machine(), quiet, ["micro"])["results"]
    return rows


def test_every_operation_and_every_version_has_a_row() -> None:
    rows = timed(*(small(op.name) for op in OPS))
    found = [(row["op"], row["version"]) for row in rows]
    expected = [
        (op.name, version)
        for op in OPS
        for version in ("reference", *op.versions_for(CpuDevice(torch.float32, threads=1)))
    ]
    assert found == expected
    assert all(row["agrees"] and len(row["rounds_ns"]) == 5 for row in rows)
    for row in rows:
        assert row["time_ns"]["low"] <= row["time_ns"]["median"] <= row["time_ns"]["high"]
        assert row["gb_per_s"] == pytest.approx(row["bytes"] / row["time_ns"]["median"])
        assert row["of_bandwidth"] * {"L2": 40, "memory": 10}[row["level"]] == pytest.approx(row["gb_per_s"])
        assert (row["of_peak"] is None) == (row["flops"] == 0)
        assert (row["against"] is None) == (row["version"] == "reference")
    json.dumps(rows, allow_nan=False)


def test_weights_come_from_memory_and_activations_from_the_cache() -> None:
    levels = {row["op"]: row["level"] for row in timed(small("linear"), small("layer_norm"))}
    assert levels == {"linear": "memory", "layer_norm": "L2"}


@pytest.mark.parametrize(("native", "version"), [(True, "native"), (False, "upcast")])
def test_formats_of_16_bits_run_the_versions_for_them(native: bool, version: str) -> None:
    rows = timed(small("linear"), small("gelu"), dtype=torch.bfloat16, native=native)
    versions = ["reference", version, f"{version}, in tiles", "reference", "torch"]
    # `compiled` is there where a compiler is.
    assert [row["version"] for row in rows if row["version"] != "compiled"] == versions
    assert all(row["agrees"] for row in rows)


def test_a_fast_wrong_version_is_wrong() -> None:
    def nothing(x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, torch.nan)

    rows = timed(small("gelu", versions={"torch": torch.nn.functional.gelu, "nothing": nothing, "relu": torch.relu}))
    assert [verdict(row) == "wrong" for row in rows] == [False, False, True, True]
    assert "gelu nothing at 1x64; gelu relu at 1x64" in sentences(rows)[0]
    assert cells(rows[2])[8] == "not a number"


def test_a_version_that_cannot_run_is_told_and_the_others_are_timed() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such kernel\nand a stack")

    op = small("gelu", versions={"broken": broken, "torch": torch.nn.functional.gelu})
    document = run(Order((op,), 5, 0), CpuDevice(torch.float32, threads=1), machine(), quiet, [])
    assert [row["version"] for row in document["results"]] == ["reference", "torch"]
    assert sentences(document["results"], document["failures"])[0] == "FAILED: gelu broken at 1x64: no such kernel"


def row(ratio: float, low: float, high: float, drift: float = 0.0, agrees: bool = True) -> Row:
    against = {"ratio": ratio, "low": low, "high": high, "coverage": 0.9375, "rounds": 5, "drift": drift}
    return {
        "op": "gelu", "version": "new", "shape": [8, 64], "time_ns": {"median": 2000.0, "low": 1e3, "high": 3e3},
        "gb_per_s": 5.0, "level": "memory", "of_bandwidth": 0.5, "of_peak": 0.125, "against": against,
        "max_error": 2e-6, "agrees": agrees,
    }  # fmt: skip


def test_verdicts_follow_the_interval_the_drift_and_the_result() -> None:
    assert verdict(row(0.5, 0.4, 0.6)) == "faster"
    assert verdict(row(1.5, 1.4, 1.6)) == "slower"
    assert verdict(row(0.9, 0.8, 1.1)) == "undecided"
    assert verdict(row(0.9, 0.8, 0.95, drift=-0.3)) == "undecided"
    assert verdict(row(0.5, 0.4, 0.6, agrees=False)) == "wrong"


def test_the_table_has_the_numbers() -> None:
    assert cells(row(0.5, 0.4, 0.6)) == (
        "gelu", "new", "8x64", "2.0 us", "5.0", "50 % of memory", "12.5 %", "0.50 (0.40 to 0.60)", "2e-06", "faster",
    )  # fmt: skip
    told = sentences([row(0.5, 0.4, 0.6), row(1.5, 1.4, 1.6)])
    assert "Of 2 timings of versions: 1 faster, 1 slower." in told[0]
    assert "93.8 % over 5 rounds" in told[0]


def test_ctrl_c_keeps_what_was_measured() -> None:
    def stop(what: str, done: int, _whole: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    device = CpuDevice(torch.float32, threads=1)
    document = run(Order((small("relu"), small("gelu")), 5, 0), device, machine(), stop, ["micro"])
    assert document["interrupted"]
    assert [row["op"] for row in document["results"]] == ["relu"]


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'layer_norm'"):
        Order.of(["layernorm"], 5, 0)
    with pytest.raises(ConfigError, match="--rounds: 4"):
        Order.of([], 4, 0)
    without = replace(machine(), matrix={})
    with pytest.raises(ConfigError, match="ridgeline calibrate"):
        run(Order.of([], 5, 0), CpuDevice(torch.float32, threads=1), without, quiet, [])


def test_the_command_writes_a_run_file(tmp_path: Path) -> None:
    write_run(ceilings_path(tmp_path, choose("cpu", "float32")), to_json(machine()))
    file = tmp_path / "micro.json"
    command = [
        "micro",
        "--op",
        "uniforms",
        "--rounds",
        "5",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--json",
        str(file),
    ]
    environment = os.environ | {"RIDGELINE_CACHE_DIR": str(tmp_path), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "ridgeline", *command],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.split()[:3] for line in done.stdout.splitlines() if "uniforms" in line][-1][-1] == "1024"
    document = json.loads(file.read_text())
    assert (document["format"], document["kind"], document["config"]["rounds"]) == (1, "micro", 5)
    assert [row["shape"] for row in document["results"]] == [[1], [32], [1024]]
