"""A ledger drawn: points and roofs where the numbers say, sentences that follow them, files that stand alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ridgeline.core.ceilings import to_json
from ridgeline.core.errors import ConfigError
from ridgeline.core.records import write_run
from ridgeline.core.report import Group, Roof, bare, reported
from ridgeline.device.choose import choose
from ridgeline.lab.ledger.file import read_ledger
from ridgeline.lab.machine import ceilings_path
from ridgeline.lab.report import page
from ridgeline.lab.roofline.page import figure, row, told
from ridgeline.lab.roofline.roofline import PAGE, PICTURES, RUN_FILE, write
from ridgeline.lab.roofline.roofs import Roofline
from ridgeline.lab.roofline.words import readings, warnings
from tests.conftest import Command
from tests.lab.hand_ceilings import machine, rate
from tests.lab.ledgers import decode, document, ledger, place, prefill, step
from tests.lab.test_page import Page, words


def groups(roofline: Roofline) -> dict[str, Group]:
    """By name, the first of each."""
    return {group.name: group for group in reversed(figure(roofline).groups)}


def roofs(roofline: Roofline) -> dict[str, Roof]:
    return {roof.name: roof for roof in figure(roofline).roofs}


def said(*steps: Any, **options: Any) -> str:
    return " ".join(readings(Roofline.of(ledger(*steps, **options))))


def test_points_stand_where_the_numbers_say() -> None:
    drawn = groups(Roofline.of(ledger()))
    assert [mark.x for mark in drawn["qkv"].marks] == [1.0, 8.0, 64.0]
    assert [mark.y for mark in drawn["qkv"].marks] == pytest.approx([5e9, 40e9, 100e9])
    assert [mark.x for mark in drawn["attention"].marks] == [2.0, 2.0, 2.0]
    assert [mark.y for mark in drawn["attention"].marks] == pytest.approx([2e9] * 3)
    whole = drawn["decode step, by batch"].marks
    assert [mark.label for mark in whole] == ["1", "8", "64"]
    assert whole[0].x == pytest.approx(1_020_000 / 1_010_000)
    assert whole[0].y == pytest.approx(1_020_000 / 260_000 * 1e9)
    assert [mark.x for mark in drawn["prefill"].marks] == [400.0]
    assert [mark.y for mark in drawn["prefill"].marks] == pytest.approx([100e9])
    assert "host" not in drawn
    for part in ("50 % of its roof", "floor 101.0 us, timed 200.0 us", "binds: memory"):
        assert part in drawn["qkv"].marks[0].hint


def test_every_ceiling_is_drawn_and_the_datasheet_is_marked() -> None:
    drawn = roofs(Roofline.of(ledger()))
    slopes = {name: drawn[name].begin[1] / drawn[name].begin[0] for name in ("memory 10 GB/s", "L2 40 GB/s")}
    assert slopes == pytest.approx({"memory 10 GB/s": 10e9, "L2 40 GB/s": 40e9})
    roof, other = drawn["bfloat16 200 GFLOP/s"], drawn["float32 100 GFLOP/s"]
    assert roof.begin[1] == roof.end[1] == 200e9
    assert (roof.kind, other.kind) == ("roof", "other roof")
    sheets = [name for name, line in drawn.items() if line.kind == "datasheet"]
    assert sheets == ["datasheet: 12 GB/s", "datasheet: bfloat16 300 GFLOP/s"]
    whole = figure(Roofline.of(ledger()))
    assert [mark.x for mark in whole.ridges] == [5.0, 20.0]
    labels = [line.label for line in whole.roofs if line.label]
    assert labels == ["L2 40 GB/s", "memory 10 GB/s", "float32 100 GFLOP/s", "bfloat16 200 GFLOP/s"]
    assert "ridge: 20 FLOP/byte" in whole.named[2]
    assert not [name for name in roofs(Roofline.of(ledger(ceilings=machine()))) if "datasheet" in name]


def test_roofs_that_lie_close_share_a_name() -> None:
    equal = replace(machine(), matrix={"bfloat16": rate(200e9), "float16": rate(190e9), "float32": rate(100e9)})
    labels = [line.label for line in Roofline.of(ledger(ceilings=equal)).lines if line.flat]
    assert labels == ["bfloat16 200 GFLOP/s, float16 190 GFLOP/s", "", "float32 100 GFLOP/s"]


def test_everything_is_inside_the_plot() -> None:
    roofline = Roofline.of(ledger())
    (left, right), (bottom, top) = roofline.across, roofline.up
    assert roofline.places
    assert roofline.steps
    for point in (*roofline.places, *roofline.steps):
        assert left < point.intensity < right
        assert bottom < point.flops_per_s < top


def test_a_region_has_one_name_and_colour() -> None:
    two = [place("mlp", "mlp_in", 1000, 2000, 900.0), place("mlp", "mlp_out", 1000, 2000, 800.0)]
    drawn = figure(Roofline.of(ledger(step("decode", 1, 1, two), step("prefill", 1, 64, two)))).groups
    mlp = [group for group in drawn if group.name == "mlp"]
    assert len({group.index for group in mlp}) == 1
    assert sorted(group.joined for group in mlp) == [False, False, True, True]


def test_sentences_follow_the_numbers() -> None:
    text = said()
    assert "At batch 1 a decode step does 1.0 FLOP a byte, 20 times below the ridge of 20 (bfloat16, memory)" in text
    assert "memory binds" in text
    assert "From batch 64 on a whole step is over its ridge" in text
    assert "rise from 1.0 to 64 FLOP a byte and are over it from batch 64 on" in text
    assert "attention stays at 2.0, because" in text
    assert "A prompt of 512 tokens computed at once does 400 FLOP a byte, 20 times the ridge of 20" in text
    assert "arithmetic binds" in text
    assert "39 % (decode, batch 1)" in text
    assert "50 % (prefill, 512 tokens)" in text
    assert "qkv (decode, batch 1: 50 % of its roof, 200 us where 100 us are possible)" in text
    assert "attention (decode, batch 64: 10 % of its roof, 640 us where 64 us are possible)" in text


def test_a_step_whose_parts_stand_on_both_sides_of_the_ridge_is_told() -> None:
    parts = [place("mlp", "mlp_in", 1000, 500_000, 9e3), place("attention", "attention", 26_000, 60_000, 8e3)]
    text = said(step("decode", 4, 4, parts))
    assert "arithmetic binds, though the largest part of its floor is set by memory." in text
    assert "though" not in said()


def test_sentences_do_not_say_what_was_not_measured() -> None:
    few = said(decode(1), decode(8))
    assert "No batch measured here, up to 8, takes a whole step over its ridge" in few
    assert "stay below it" in few
    assert "prompt" not in few
    assert "From batch" not in said(decode(1))
    assert "decode" not in said(prefill())


def test_a_model_in_the_cache_is_told_and_held_against_the_cache() -> None:
    assert warnings(Roofline.of(ledger())) == ()
    near = Roofline.of(ledger(ceilings=machine(cache_bytes=1 << 30)))
    assert "any step here" in warnings(near)[0]
    assert "stays in L2" in warnings(near)[0]
    assert "5.0 times below the ridge of 5.0 (bfloat16, L2): L2 binds" in readings(near)[0]
    assert "From batch 8 on a whole step is over its ridge" in readings(near)[2]
    assert warnings(near)[0] in words(told(near))
    some = Roofline.of(ledger(ceilings=machine(cache_bytes=300_000_000)))
    assert "these steps (decode, batch 1; prefill, 512 tokens)" in warnings(some)[0].replace("decode, batch 8; ", "")


def test_the_page_needs_no_network_and_has_every_number_as_text() -> None:
    roofline = Roofline.of(ledger())
    shown, run = words(told(roofline)), reported(document(), told(roofline))
    assert Page(page(run)).fetched == []
    assert Page(page(run)).run == json.loads(json.dumps(run))
    for sentence in readings(roofline):
        assert sentence in shown
    for point in (*roofline.steps, *roofline.places):
        for cell in row(point):
            assert cell in shown
    assert "the vendor" in shown


def test_the_files_stand_alone(tmp_path: Path) -> None:
    _, paths = write(ledger(), tmp_path)
    assert {path.name for path in paths} == {PAGE, RUN_FILE, *PICTURES} == {path.name for path in tmp_path.iterdir()}
    svg = ElementTree.parse(tmp_path / "roofline.svg").getroot()
    assert svg.tag.endswith("svg")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((tmp_path / RUN_FILE).read_text())
    assert bare(written) == json.loads(json.dumps(document()))
    assert Page((tmp_path / PAGE).read_text()).run == written
    first = (tmp_path / "roofline.svg").read_bytes()
    write(ledger(), tmp_path)
    assert (tmp_path / "roofline.svg").read_bytes() == first


def test_a_ledger_without_arithmetic_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to draw"):
        Roofline.of(ledger(step("decode", 1, 1, [place("host", "host", 0, 0, 10.0)])))


def run(*arguments: str, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ridgeline", "roofline", *arguments]
    environment = os.environ | ({} if cache is None else {"RIDGELINE_CACHE_DIR": str(cache)})
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)


def test_the_command_draws_a_run_file(tmp_path: Path) -> None:
    source, out = tmp_path / "ledger.json", tmp_path / "drawn"
    source.write_text(json.dumps(document()))
    done = run("--from", str(source), "--output", str(out))
    assert done.returncode == 0, done.stderr
    assert "At batch 1 a decode step does 1.0 FLOP a byte" in " ".join(done.stdout.split())
    assert str(out / PAGE) in done.stdout
    assert len(list(out.iterdir())) == 4


def test_the_command_measures_and_draws(tmp_path: Path) -> None:
    write_run(ceilings_path(tmp_path, choose("cpu", "float32")), to_json(machine()))
    out = tmp_path / "drawn"
    sizes = ("--batch", "2", "--batch", "1", "--context", "24", "--steps", "2", "--prefill", "16")
    where = ("--model", "demo", "--device", "cpu", "--dtype", "float32", "--output", str(out))
    done = run(*sizes, *where, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    drawn = Roofline.of(read_ledger(out / RUN_FILE))
    assert [(step.phase, step.batch) for step in drawn.steps] == [("decode", 1), ("decode", 2), ("prefill", 1)]
    assert {"qkv", "attention", "mlp", "head"} <= {point.region for point in drawn.places}
    assert "At batch 1 a decode step does" in done.stdout
    assert len(list(out.iterdir())) == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"kind": "ladder"}, "'ladder'"), ({"format": 9}, "format 9"), ({"results": 3}, "measure it again")],
)
def test_another_run_file_is_refused(command: Command, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    source = tmp_path / "other.json"
    source.write_text(json.dumps(document(**changes)))
    done = command("roofline", "--from", str(source), "--output", str(tmp_path / "drawn"))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("option", "value"), [("--batch", "4"), ("--dtype", "float32"), ("--model", "demo")])
def test_what_is_drawn_and_what_is_measured_exclude_each_other(
    command: Command, tmp_path: Path, option: str, value: str
) -> None:
    done = command("roofline", "--from", str(tmp_path / "ledger.json"), option, value)
    assert done.returncode == 2
    assert f"{option} asks for something new" in done.stderr
