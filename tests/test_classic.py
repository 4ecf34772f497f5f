"""The classic commands, word for word, in a fresh copy of the project with an environment of its own.

    python -m venv venv; source venv/bin/activate; pip install -r requirements.txt; python server.py
    python client.py --mode benchmark; python client.py --mode concurrent --num-requests 16 --delay-ms 10

The hub is a stand-in on this machine that serves a small GPT-2 under the name gpt2, slowly enough to be waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_stand_in import Fault, HubStandIn
from tests.tiny_gpt2 import write_tiny_gpt2

ROOT = Path(__file__).parent.parent
INSTALL_S, RUN_S = 900, 240
OFFLINE = ("No matching distribution found", "Failed to establish a new connection", "name resolution")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(INSTALL_S + 3 * RUN_S),
    pytest.mark.skipif(sys.platform == "win32", reason="the commands are written for a POSIX shell"),
]


class Shell:
    """Bash in the project's folder, with the environment activated once there is one."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder, self.variables = folder, os.environ | variables
        self.variables.pop("PYTHONPATH", None)

    def command(self, line: str) -> list[str]:
        activate = "source venv/bin/activate" if (self.folder / "venv").exists() else "true"
        return ["bash", "-c", f"{activate} && exec {line}"]

    def run(self, line: str, timeout: float = RUN_S) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(line), cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip

    @contextlib.contextmanager
    def serving(self, line: str) -> Iterator[Path]:
        """Runs in the background; yields its log, and ends it as Ctrl-C would."""
        log = self.folder / "server.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                self.command(line), cwd=self.folder, env=self.variables, stdout=out, stderr=subprocess.STDOUT
            )
            try:
                yield log
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise
        assert process.returncode == 0, log.read_text()


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def copy_of_the_project(folder: Path) -> Path:
    """What a clone would have: the tracked files, and those that are about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def install(shell: Shell) -> None:
    assert shell.run("python -m venv venv").returncode == 0
    done = shell.run("pip install --quiet -r requirements.txt", INSTALL_S)
    if done.returncode and any(word in done.stderr for word in OFFLINE):
        pytest.skip(f"no package registry can be reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def test_the_classic_commands(tmp_path: Path) -> None:
    model = write_tiny_gpt2(tmp_path / "gpt2", positions=1024, d_model=64, heads=4)
    folder = copy_of_the_project(tmp_path / "ridgeline")
    slow = Fault(where="model.safetensors", pace_s=0.3)
    with HubStandIn({"gpt2": model}, slow) as hub:
        shell = Shell(folder, {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "NO_COLOR": "1"})
        install(shell)
        # Port 8000 as written, unless something else on this machine has it.
        flag, url = ("", "") if port_is_free(8000) else (" --port 8765", " --url http://localhost:8765")

        lonely = shell.run(f"python client.py --mode benchmark{url}")
        assert lonely.returncode == 1
        assert "start one with: python server.py" in lonely.stdout + lonely.stderr

        with shell.serving(f"python server.py{flag}") as log:
            one = f"python client.py --mode concurrent --num-requests 16 --delay-ms 10{url}"
            # The first client comes while the model downloads; --wait-s covers the moment before the port is open.
            drawn = shell.run(one + " --wait-s 60 --json run.json")
            assert drawn.returncode == 0, drawn.stdout + drawn.stderr + log.read_text()
            assert "downloading gpt2" in drawn.stdout + drawn.stderr
            measured = shell.run(f"python client.py --mode benchmark --max-tokens 8{url}")
            assert measured.returncode == 0, measured.stdout + measured.stderr + log.read_text()
        assert "downloading gpt2: 100 %" in log.read_text()
        assert "model 'gpt2'" in log.read_text()
        assert hub.downloaded() >= {"config.json", "model.safetensors"}

    assert "waiting for the window" in drawn.stdout
    assert "wasted" in drawn.stdout
    assert "one at a" in measured.stdout
    check_batches(json.loads((folder / "run.json").read_text()))


def check_batches(run: dict[str, object]) -> None:
    requests = run["requests"]
    assert isinstance(requests, list)
    batches = [request["reply"]["timings"]["batch"] for request in requests]
    assert len(batches) == 16
    sizes = {batch["serial"]: batch["size"] for batch in batches}
    assert sum(sizes.values()) == 16
    assert max(sizes.values()) <= 8
    assert {batch["closed"] for batch in batches} <= {"window", "full"}
