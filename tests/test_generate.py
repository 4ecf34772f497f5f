"""`ridgeline generate` as a user meets it: text on stdout in the prompts' order, everything else on stderr."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ridgeline.cli import app
from ridgeline.cli.generating import Turns
from ridgeline.core.errors import RidgelineError
from ridgeline.core.types import Timings
from ridgeline.llm import Generation, Piece
from tests.tiny_gpt2 import write_tiny_gpt2

TIMES = Timings(0, 0, 0, 10**6, 10**9, 1, 1, 0, None)
COMMAND = [sys.executable, "-m", "ridgeline", "generate", "--kv-memory", "64MiB", "--device", "cpu", "--model"]
TIMEOUT_S = 120


def test_the_first_streams_and_the_others_wait_for_their_turn() -> None:
    out = io.StringIO()
    turns = Turns(["A", "B"], out)
    turns.push(Piece(1, " late", [1], Generation(" late", [1], [0], "stop", TIMES)))
    assert out.getvalue() == "A"
    turns.push(Piece(0, " now", [1], None))
    assert out.getvalue() == "A now"
    turns.push(Piece(0, ".", [2], Generation(" now.", [1, 2], [0], "length", TIMES)))
    assert out.getvalue() == "A now.\nB late\n"
    assert [end.text for end in turns.ends] == [" now.", " late"]
    turns.interrupt()
    assert out.getvalue().endswith("late\n")


def test_json_lines_stdin_and_figures(tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "tiny")
    done = subprocess.run(
        [*COMMAND, str(folder), "--max-tokens", "5", "--json", "--stats", "the river", "-"],
        input="a light\n", capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["prompt"] for line in lines] == ["the river", "a light"]
    assert all(0 < line["completion_tokens"] <= 5 for line in lines)
    assert "tokens/s" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["a", "--max-tokens", "0"], "max_tokens"),
        (["a", "--temperature", "-1"], "temperature"),
        (["-"], "not UTF-8"),
        (["\udcff"], "not UTF-8"),
    ],
)
def test_mistakes_are_told_before_a_model_is_looked_for(arguments: list[str], named: str) -> None:
    done = CliRunner().invoke(app, ["generate", "--model", "/nowhere", *arguments], input=b"\xff")
    assert isinstance(done.exception, RidgelineError)
    assert named in str(done.exception)


def test_ctrl_c_keeps_what_was_printed_and_ends_the_line() -> None:
    command = [*COMMAND[:-1], "--random-weights", "distilgpt2", "--max-tokens", "900", "the river"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    begun = process.stdout.read(9)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, err
    assert begun == b"the river"
    assert out.endswith(b"\n")
    assert b"Traceback" not in err
