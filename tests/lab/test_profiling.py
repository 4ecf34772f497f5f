"""`ridgeline profile`: a trace with the steps and places named, a run file, nsys where there is one, Ctrl-C."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ridgeline.build import EngineOrder
from ridgeline.cli import app
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.lab.machine import Progress
from ridgeline.lab.profiling import PREFILLS, Ask, Nsys, run
from ridgeline.runner.places import REGION_OF
from tests.tiny_gpt2 import write_tiny_gpt2

ASK = Ask("both", batch=2, context=12, steps=3, prefill=20)
LAYERS = 2
ONCE = ("embedding", "attention_plan", "norm", "head", "sampling")

STAND_IN = """#!{python}
import pathlib, subprocess, sys
given = sys.argv[1:]
output = given[given.index("--output") + 1]
pathlib.Path(output + ".heard").write_text("\\n".join(given))
code = {code}
if code:
    sys.exit("no permission to trace" if code == 1 else code)
steps = given[given.index("--force-overwrite") + 2:]
sys.exit(subprocess.run(steps).returncode)
"""


def stand_in(folder: Path, code: int = 0) -> Path:
    folder.mkdir()
    program = folder / "nsys"
    program.write_text(STAND_IN.format(python=sys.executable, code=code))
    program.chmod(0o755)
    return program


@contextlib.contextmanager
def no_bar() -> Iterator[Progress]:
    yield lambda _what, _done, _whole: None


@contextlib.contextmanager
def interrupting_bar() -> Iterator[Progress]:
    """Ctrl-C in the second decode step."""

    def progress(what: str, done: int, _whole: int) -> None:
        if (what, done) == ("decode", 1):
            raise KeyboardInterrupt

    yield progress


@pytest.fixture
def order(tmp_path: Path) -> EngineOrder:
    weights = write_tiny_gpt2(tmp_path / "tiny", layers=LAYERS)
    return EngineOrder(Config.of(model=str(weights), device="cpu"), "tiny", weights)


def written(folder: Path) -> tuple[dict[str, Any], Counter[str]]:
    """The run file, and how often each named range is in the trace."""
    with gzip.open(folder / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    named = Counter(event["name"] for event in events if event.get("cat") == "user_annotation")
    return json.loads((folder / "profile.json").read_text()), named


def calls(result: dict[str, Any]) -> dict[str, int]:
    return {place["place"]: place["calls"] for place in result["places"]}


def expected(steps: int) -> dict[str, int]:
    return {place: steps * (1 if place in ONCE else LAYERS) for place in REGION_OF} | {"host": steps}


def test_both_kinds_of_step_are_traced_and_told_apart(order: EngineOrder, tmp_path: Path) -> None:
    said, folder = io.StringIO(), tmp_path / "out"
    assert run(order, ASK, folder, ["a", "command"], None, Console(file=said, width=100), no_bar) == 0
    document, named = written(folder)
    assert (document["format"], document["kind"], document["interrupted"]) == (1, "profile", False)
    assert document["provenance"]["command"] == ["a", "command"]
    prefill, decode = document["results"]
    assert (prefill["phase"], prefill["batch"], prefill["context"], prefill["steps"]) == ("prefill", 1, 20, PREFILLS)
    assert (decode["phase"], decode["batch"], decode["context"], decode["steps"]) == ("decode", 2, 12, 3)
    assert calls(prefill) == expected(PREFILLS)
    assert calls(decode) == expected(3)
    assert all(place["host_ns"] >= 0 for result in document["results"] for place in result["places"])
    assert (named["prefill step"], named["decode step"]) == (PREFILLS, 3)
    assert named["qkv"] == LAYERS * (PREFILLS + 3)
    assert any(row["name"].startswith("aten::") for row in document["operations"])
    for word in ("attn_out", "aten::", "https://ui.perfetto.dev", "decode: 3 steps, batch 2, context 12"):
        assert word in said.getvalue()
    assert sorted(path.name for path in folder.iterdir()) == ["profile.json", "trace.json.gz"]


def test_ctrl_c_leaves_what_was_traced(order: EngineOrder, tmp_path: Path) -> None:
    said = io.StringIO()
    nsys = Nsys("/nowhere/nsys", tmp_path, ("true",), must=True)
    assert run(order, ASK, tmp_path / "out", [], nsys, Console(file=said, width=100), interrupting_bar) == 130
    document, named = written(tmp_path / "out")
    assert document["interrupted"]
    assert [result["steps"] for result in document["results"]] == [PREFILLS, 1]
    assert named["decode step"] == 1
    assert "Interrupted" in said.getvalue()
    assert "Running" not in said.getvalue()


def test_nsys_runs_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, out = write_tiny_gpt2(tmp_path / "tiny", layers=LAYERS), tmp_path / "out"
    program = stand_in(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(program.parent))
    flags = ["--model", str(weights), "--phase", "decode", "--context", "12", "--steps", "2", "--batch", "3"]
    done = CliRunner().invoke(app, ["profile", *flags, "--device", "cpu", "--output", str(out)])
    assert done.exit_code == 0, done.output
    heard = (out / "timeline.heard").read_text().splitlines()
    assert heard[:3] == ["profile", "--trace=cuda,nvtx,osrt", "--output"]
    again = heard[heard.index("ridgeline") :]
    assert again[:2] == ["ridgeline", "profile"]
    assert again[-1] == "--ranges-only"
    for pair in (("--phase", "decode"), ("--context", "12"), ("--steps", "2"), ("--batch", "3"), ("--device", "cpu")):
        assert again[again.index(pair[0]) + 1] == pair[1]
    assert f"Running: {program} profile --trace=cuda,nvtx,osrt" in done.output.replace("\n", " ")
    assert json.loads((out / "profile.json").read_text())["nsys"]["code"] == 0


def test_an_nsys_that_fails_is_a_note_or_an_error_as_it_was_asked_for(tmp_path: Path) -> None:
    program, said = stand_in(tmp_path / "bin", code=1), io.StringIO()
    auto = Nsys(str(program), tmp_path, ("true",), must=False)
    assert auto.timeline(Console(file=said, width=200))["code"] == 1
    assert "no permission to trace" in said.getvalue()
    with pytest.raises(ConfigError, match="no permission to trace"):
        Nsys(str(program), tmp_path, ("true",), must=True).timeline(Console(file=said))
    with pytest.raises(ConfigError, match="No such file"):
        Nsys("/nowhere/nsys", tmp_path, ("true",), must=True).timeline(Console(file=said))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--nsys", "on"], "Nsight Systems"),
        (["--nsys", "on", "--ranges-only"], "leave --nsys out"),
        (["--prefill", "100000"], "--prefill 100000"),
        (["--phase", "decode", "--context", "100000"], "--context 100000"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    flags: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("nsys") is not None:
        monkeypatch.setenv("PATH", str(tmp_path))
    weights = write_tiny_gpt2(tmp_path / "tiny")
    done = CliRunner().invoke(app, ["profile", "--model", str(weights), "--output", str(tmp_path / "out"), *flags])
    assert isinstance(done.exception, ConfigError)
    assert words in str(done.exception)


def test_a_folder_that_cannot_be_made_is_a_sentence(order: EngineOrder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--output"):
        run(order, ASK, tmp_path / "file", [], None, Console(file=io.StringIO()), no_bar)
