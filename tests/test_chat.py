"""`ridgeline chat` as a user meets it: through a pipe, at a terminal, and with a reader that leaves early."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from tests.server.live import serving
from tests.tiny_gpt2 import write_tiny_gpt2

COMMAND = [sys.executable, "-m", "ridgeline", "chat"]
SMALL = ["--kv-memory", "64MiB", "--device", "cpu"]
ENDLESS = [*SMALL, "--random-weights", "distilgpt2", "--max-tokens", "900"]
TIMEOUT_S = 120
PROMPT = "\x1b[?2004h"  # a line is edited from here on; answers have no escapes
ANSWER = r"[^\x00-\x1f]{40,}"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}bot:{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gpt2(tmp_path_factory.mktemp("model") / "tiny")


def chat(*arguments: str, text: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--temperature", "0", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_a_pipe_gets_continuations_and_nothing_else(folder: Path) -> None:
    done = chat(*SMALL, "--model", str(folder), "--max-tokens", "6", text="the river\n\n/help\n/reset\nthe river\n")
    assert done.returncode == 0, done.stderr
    first, second, again = done.stdout.splitlines()
    assert first == again != second
    assert "no chat template" in done.stderr
    assert "/system" in done.stderr


def test_a_template_makes_roles_and_a_full_context_leaves_old_turns_out(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    words = "It was a bright cold day in the valley, and the river ran high.\n" * 8
    done = chat(*SMALL, "--model", str(tmp_path), "--max-tokens", "4", text=words)
    assert done.returncode == 0, done.stderr
    assert "no chat template" not in done.stderr
    assert done.stderr.count("the oldest turns are left out") == 1
    assert "no chat template" not in chat(*SMALL, "--model", str(tmp_path), "--plain", text="").stderr


def test_a_server_answers_without_a_model_here() -> None:
    with serving() as live:
        done = chat("--url", live.url, "--plain", "--max-tokens", "9", text="Hello\n\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Grüße, \nGrüße, \n"
    assert "leave out" in chat("--url", "http://127.0.0.1:1", "--model", "demo", text="").stderr


def test_a_terminal(tmp_path: Path) -> None:
    places = {"RIDGELINE_CACHE_DIR": str(tmp_path / "cache"), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    child = pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], *ENDLESS], env=os.environ | places, timeout=TIMEOUT_S, encoding="utf-8",
        dimensions=(40, 200),
    )  # fmt: skip
    try:
        for words in ("the river", "the tower"):
            child.expect_exact(PROMPT)
            child.send(words + "\r")
            child.expect(ANSWER)
            child.sendintr()
            child.expect_exact(PROMPT)
            child.send("/reset\r")
            child.expect_exact("what was said is forgotten")
        child.expect_exact(PROMPT)
        child.sendintr()  # at the prompt it only clears the line
        child.expect_exact(PROMPT)
        child.sendeof()
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 0
    finally:
        child.close(force=True)
    history = tmp_path / "cache" / "chat-history"
    assert "+the tower" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("command", ["chat", "generate"])
def test_a_reader_that_leaves_early_is_no_mistake(command: str) -> None:
    prompt = ["the river"] if command == "generate" else []
    process = subprocess.Popen(
        [*COMMAND[:-1], command, *ENDLESS, *prompt],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(b"the river\n" * 3)
    assert process.stdout.read(1)
    process.stdout.close()
    process.stdin.close()
    told = process.stderr.read()
    assert process.wait(TIMEOUT_S) == 1
    assert b"Traceback" not in told
    assert b"BrokenPipe" not in told
    assert b"Exception" not in told
