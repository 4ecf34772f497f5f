"""`ridgeline calibrate`: the tables of measured ceilings, where they are kept, and when they are measured again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ridgeline.cli import app
from ridgeline.core.ceilings import Ceilings, from_json
from ridgeline.core.errors import ConfigError
from ridgeline.device import peaks
from ridgeline.device.base import Device
from ridgeline.device.repeats import Budget
from ridgeline.lab.calibration import show, si
from tests.bench.hand import Screen
from tests.core.made_up import ceilings

QUICK = Budget(repeats=5, repeat_ns=20_000, memory_bytes=2 << 20, matrix_sizes=(32,))


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Ceilings]:
    """What was really measured, with a budget that no test waits for."""
    made: list[Ceilings] = []
    whole = peaks.measure

    def quickly(
        device: Device, cache: Path, progress: Callable[[str, int, int], None], provenance: Mapping[str, Any]
    ) -> Ceilings:
        made.append(whole(device, cache, progress, provenance, QUICK))
        return made[-1]

    monkeypatch.setattr(peaks, "measure", quickly)
    monkeypatch.setenv("RIDGELINE_CACHE_DIR", str(tmp_path / "cache"))
    return made


def text_of(found: Ceilings, width: int = 80) -> str:
    screen = Screen(width=width)
    show(screen.console, found, Path("/a/place.json"))
    assert all(len(line) <= width for line in screen.lines if "(" in line and " - " in line), "tables fit"
    return screen.text


def test_the_tables_have_every_figure_and_its_origin() -> None:
    text = text_of(ceilings())
    for words in (
        ("L1", "97.7 KiB", "1.00 (0.90 - 1.10) TB/s"),
        ("memory", "-", "10.0 (9.00 - 11.0) GB/s", "20.0 GB/s"),
        ("bfloat16", "1.00 (0.90 - 1.10) TFLOP/s", "100.0 FLOP/B", "2.00 TFLOP/s"),
        ("one more operation", "1.00 (0.90 - 1.10) us"),
        ("one more in a graph", "0.10 (0.09 - 0.11) us"),
        ("host to device", "5.00 (4.50 - 5.50) GB/s"),
    ):
        assert any(all(word in line for word in words) for line in text.splitlines()), words
    assert "datasheet" in text
    assert "a leaflet" in text
    assert "Note: a note" in text
    assert "/a/place.json" in text


def test_what_is_not_there_is_not_shown() -> None:
    text = text_of(ceilings(datasheet=None, graph_launch_ns=None, to_device=None, notes=()))
    for word in ("datasheet", "graph", "host to device", "Note"):
        assert word not in text


def test_three_digits_whatever_the_size() -> None:
    assert [si(value, "B/s") for value in (5.0, 41.5e9, 953.2e9, 1.979e15)] == [
        "5.00 B/s", "41.5 GB/s", "953 GB/s", "1.98 PB/s",
    ]  # fmt: skip


def test_it_measures_again_unless_told_otherwise(tmp_path: Path, measured: list[Ceilings]) -> None:
    runner, out = CliRunner(), tmp_path / "ceilings.json"
    assert runner.invoke(app, ["calibrate", "--device", "cpu", "--kept"]).exit_code == 0
    assert runner.invoke(app, ["calibrate", "--device", "cpu"]).exit_code == 0
    assert len(measured) == 2
    done = runner.invoke(app, ["calibrate", "--device", "cpu", "--kept", "--json", str(out)])
    assert len(measured) == 2
    (kept,) = (tmp_path / "cache" / "ceilings").glob("*.json")
    assert str(kept) in "".join(done.output.split())
    told = json.loads(out.read_text())
    assert (told["format"], told["kind"], told["config"]["device"]) == (1, "ceilings", "cpu")
    assert from_json("x", told["results"]) == measured[1]
    assert measured[1].provenance["cores"]


def test_a_broken_file_is_named_when_it_is_read_and_replaced_when_it_is_measured(
    tmp_path: Path, measured: list[Ceilings]
) -> None:
    runner = CliRunner()
    runner.invoke(app, ["calibrate", "--device", "cpu"])
    (kept,) = (tmp_path / "cache" / "ceilings").glob("*.json")
    kept.write_text("{")
    failed = runner.invoke(app, ["calibrate", "--device", "cpu", "--kept"])
    assert isinstance(failed.exception, ConfigError)
    assert "run `ridgeline calibrate` again" in str(failed.exception)
    assert runner.invoke(app, ["calibrate", "--device", "cpu"]).exit_code == 0
    assert from_json("x", json.loads(kept.read_text())) == measured[-1]
