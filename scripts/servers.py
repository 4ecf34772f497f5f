"""Servers of this checkout, for scripts that measure them over HTTP: started, ready, their CPU time by process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

START_S = 300


@dataclass(frozen=True)
class Running:
    url: str
    process: psutil.Process

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far: of the front, which speaks HTTP, and of what it started, the engine."""
        engine = [one.cpu_times() for one in self.process.children(recursive=True)]
        front = self.process.cpu_times()
        return {"front": front.user + front.system, "engine": sum(one.user + one.system for one in engine)}


@contextlib.contextmanager
def serving(*flags: str) -> Iterator[Running]:
    """`ridgeline serve` with these flags on a free port. Raises SystemExit, with its log, if it does not come up."""
    command = [sys.executable, "-m", "ridgeline", "serve", "--host", "127.0.0.1", "--port", "0", *flags]
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            yield Running(_address(process, said.fileno()), psutil.Process(process.pid))
        finally:
            process.terminate()


def _address(process: subprocess.Popen[bytes], log: int) -> str:
    deadline, said = time.monotonic() + START_S, Path(f"/proc/self/fd/{log}")
    while time.monotonic() < deadline and process.poll() is None:
        words = said.read_text("utf-8").split()
        if "ready" in words and "listening" in words:
            return words[words.index("listening") + 2]
        time.sleep(0.1)
    raise SystemExit(f"a server did not start:\n{said.read_text('utf-8')}")
