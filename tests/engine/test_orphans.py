"""An engine's process never outlives its front, however the front ends and whatever the engine does at that moment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

FRONT = """
import sys, threading
from ridgeline.engine.channel import ProcessChannel
from tests.engine import engines
channel = ProcessChannel(getattr(engines, sys.argv[1]))
channel.start(lambda message: print(channel.process.pid, flush=True))
threading.Event().wait()
"""


@contextlib.contextmanager
def running(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A front, ended by force in the end."""
    front = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield front
    finally:
        front.kill()
        front.communicate()


def ends_with(front: subprocess.Popen[str], sent: signal.Signals) -> None:
    """The engine, whose process it tells first."""
    assert front.stdout is not None
    engine = psutil.Process(int(front.stdout.readline()))
    front.send_signal(sent)
    front.wait(20)
    gone, alive = psutil.wait_procs([engine], timeout=60)
    assert (gone, alive) == ([engine], [])


@pytest.mark.parametrize("make", ["working", "stuck"])
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_the_engine_ends_when_its_front_is_killed(make: str) -> None:
    with running(FRONT, make) as front:
        ends_with(front, signal.SIGKILL)


AHEAD = """
import sys, threading
from ridgeline.engine.process import EngineProcess
with EngineProcess(f"tests.engine.engines:{sys.argv[1]}", "nothing") as ahead:
    print(ahead.process.pid, flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize("prepare", ["prepare", "stuck_preparing"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda sent: sent.name)
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_process_that_waits_for_its_order_ends_with_its_front(prepare: str, sent: signal.Signals) -> None:
    with running(AHEAD, prepare) as front:
        ends_with(front, sent)


INTERRUPTED = """
import os, signal
from ridgeline.engine.process import EngineProcess
ahead = EngineProcess("tests.engine.engines:stuck_preparing", "nothing")
kind = type(ahead.process)
start = kind.start
kind.start = lambda process: (start(process), os.kill(os.getpid(), signal.SIGINT))
with ahead:
    print("the signal is lost")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_while_the_process_is_started_ends_both() -> None:
    with running(INTERRUPTED) as front:
        said, complaint = front.communicate(timeout=20)  # the engine's process has the pipes too: until both have ended
        assert (front.returncode, said, complaint.splitlines()[-1]) == (-signal.SIGINT, "", "KeyboardInterrupt")
