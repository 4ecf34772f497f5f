"""Children: a Ridgeline server as a child process, from its start to its certain end. Knows no load."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from ridgeline.core.config import parse_bytes
from ridgeline.core.errors import Unavailable

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
LINES_TOLD = 5
_PLAN = re.compile(r"weights ([\d.]+ \w+), workspace ([\d.]+ \w+), KV cache ([\d.]+ \w+)")


@dataclass(frozen=True, slots=True)
class Planned:
    """The memory plan as the server announced it, in bytes."""

    weights: int
    workspace: int
    kv_cache: int

    @staticmethod
    def parse(lines: Sequence[str]) -> Planned | None:
        found = next((m for line in lines if (m := _PLAN.search(line))), None)
        return None if found is None else Planned(*(parse_bytes(text) for text in found.groups()))


@dataclass(slots=True)
class Served:
    """A server that listens; lines: what it has said so far on stderr."""

    url: str
    pid: int
    lines: list[str] = field(default_factory=list)

    @property
    def planned(self) -> Planned | None:
        return Planned.parse(self.lines)


@contextlib.contextmanager
def serving(
    flags: Sequence[str], environment: Mapping[str, str], program: Sequence[str] = ("-m", "ridgeline", "serve")
) -> Iterator[Served]:
    """`ridgeline serve FLAGS` on a free port; stopped with its children whatever happens. environment: all of it.

    Raises Unavailable, with the server's last words, if it does not come to listen.
    """
    child = subprocess.Popen(
        [sys.executable, *program, *flags, "--port", "0"],
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    lines: list[str] = []
    heard = threading.Event()

    def listen() -> None:
        assert child.stderr is not None
        for line in child.stderr:
            lines.append(line.rstrip())
            if "listening on " in line:
                heard.set()
        heard.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        in_time = heard.wait(START_TIMEOUT_S)
        address = next((line.split("listening on ", 1)[1] for line in lines if "listening on " in line), None)
        if address is None:
            why = "ended" if in_time else f"did not listen within {START_TIMEOUT_S:.0f} s"
            raise Unavailable(f"the server {' '.join(flags)} {why}: {' / '.join(lines[-LINES_TOLD:])}")
        yield Served(address.strip(), child.pid, lines)
    finally:
        _stop(child)
        listener.join(STOP_TIMEOUT_S)


def _stop(child: subprocess.Popen[str]) -> None:
    """Politely, then with the whole tree, because an engine without its front would keep its memory."""
    tree = process_tree(child.pid)
    if child.poll() is None:
        child.send_signal(signal.SIGINT if sys.platform != "win32" else signal.SIGTERM)
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def process_tree(pid: int) -> list[psutil.Process]:
    """The process and all below it; empty where it has ended."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
