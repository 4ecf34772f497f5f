"""`ridgeline ledger` as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ridgeline.core.ceilings import to_json
from ridgeline.core.records import write_run
from ridgeline.device.choose import choose
from ridgeline.lab.ledger.file import read_ledger, to_document
from ridgeline.lab.machine import ceilings_path
from tests.conftest import Command
from tests.lab.machines import MACHINE
from tests.lab.test_ledger import STEP, ledger
from tests.tiny_gpt2 import write_tiny_gpt2

PATIENCE_S = 300.0


def start(cache: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ridgeline", "ledger", *arguments]
    environment = os.environ | {"RIDGELINE_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    )


def run(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    with start(cache, *arguments) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def tiny(cache: Path) -> tuple[str, ...]:
    """Options for a tiny model, on a machine whose ceilings are known already."""
    device = choose("cpu", "float32")
    write_run(ceilings_path(cache, device), to_json(MACHINE))
    return "--model", str(write_tiny_gpt2(cache / "tiny")), "--dtype", "float32", "--device", "cpu", "--prefill", "0"


def test_a_model_is_measured_shown_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    asked = ("--batch", "2", "--context", "24", "--steps", "2", "--json", str(path))
    done = run(tmp_path, *tiny(tmp_path), *asked)
    assert done.returncode == 0, done.stderr
    assert "decode, batch 2, context 24" in done.stdout
    assert "of the step measured without regions" in done.stdout.replace("\u00a0", " ")
    kept = read_ledger(path)
    assert [(made.phase, made.batch) for made in kept.steps] == [("decode", 2)]
    assert kept.config["rounds"] == 5
    assert not kept.interrupted
    shown = run(tmp_path, "--from", str(path), "--places")
    assert shown.returncode == 0, shown.stderr
    assert "mlp_out" in shown.stdout


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    batches = [part for size in range(1, 9) for part in ("--batch", str(size))]
    with start(
        tmp_path, *tiny(tmp_path), *batches, "--context", "100", "--steps", "50", "--json", str(path)
    ) as process:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not path.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 130, err
    kept = read_ledger(path)
    assert kept.interrupted
    assert 1 <= len(kept.steps) < 8
    assert "decode, batch 1, context 100" in out
    assert "Interrupted" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--from", "{kept}", "--model", "demo"), "--model asks for something new"),
        (("--from", "{kept}", "--json", "x.json"), "--from measures nothing"),
        (("--from", "{other}"), "kind 'ladder'"),
        (("--from", "nowhere.json"), "nowhere.json: cannot be read"),
        (("--json", "no/such/folder/x.json"), "there is no folder"),
    ],
)
def test_mistakes_get_one_sentence(arguments: tuple[str, ...], sentence: str, command: Command, tmp_path: Path) -> None:
    kept, other = tmp_path / "kept.json", tmp_path / "other.json"
    document = to_document(ledger(STEP))
    kept.write_text(json.dumps(document))
    other.write_text(json.dumps(document | {"kind": "ladder"}))
    done = command("ledger", *(part.format(kept=kept, other=other) for part in arguments))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_teaches() -> None:
    done = run(Path(), "--help")
    assert done.returncode == 0
    for word in ("Example:", "--batch", "--places", "--from"):
        assert word in done.stdout
