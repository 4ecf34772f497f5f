"""Ctrl-C on the server as a program: clean the first time, at once the second time, and never a traceback."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "tests.server.serve_scripted", *arguments]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def stream_of(url: str) -> openai.Stream[openai.types.Completion]:
    client = openai.OpenAI(base_url=url + "/v1", api_key="unused", max_retries=10, timeout=20)
    return client.completions.create(model="recite", prompt="x", max_tokens=200, temperature=0, stream=True)


def test_one_ctrl_c_stops_cleanly() -> None:
    with program() as (process, url):
        assert stream_of(url).response.status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_two_ctrl_c_stop_at_once_though_the_engine_hangs() -> None:
    with program("held") as (process, url):
        stream = stream_of(url)
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "finishing 1 request, for 30 s at most; Ctrl-C again to stop now\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert stream.response.status_code == 200
        assert process.stderr.read() == ""


def test_sigterm_lets_requests_in_flight_end() -> None:
    with program("slow") as (process, url):
        stream = stream_of(url)
        process.send_signal(signal.SIGTERM)
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
        assert process.wait(20) == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_a_stop_while_it_starts_is_obeyed_even_by_a_background_job(sent: signal.Signals) -> None:
    """A shell without job control has its background jobs ignore Ctrl-C."""
    job = """trap '' INT; exec "$@" """
    command = ["sh", "-c", job, "sh", sys.executable, "-m", "ridgeline", "serve", "--model", "demo", "--port", "0"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        front = psutil.Process(process.pid)
        while not front.children():  # the engine's is started first of all
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(sent)
        _, said = process.communicate(timeout=20)
        assert process.returncode in (128 + sent, 0), said  # 0: this machine is slow, and it listened already
        assert "Traceback" not in said
    finally:
        process.kill()
        process.communicate()


DROPS = """
import os, sys
from ridgeline.cli.serving import obey_signals
obey_signals(None)
class Drops:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
Drops()
print("it went on")
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda sent: sent.name)
def test_a_stop_is_obeyed_where_python_drops_exceptions(sent: signal.Signals) -> None:
    command = [sys.executable, "-c", DROPS, str(int(sent))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + sent, "", "")
