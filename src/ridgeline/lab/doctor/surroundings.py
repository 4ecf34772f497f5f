"""Surroundings: the files and programs that say what this machine is. Knows how to ask; draws no conclusion."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROGRAM_S = 20


def _run(command: Sequence[str]) -> str | None:
    """What it printed, on both streams; None where it cannot be run or does not end."""
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, errors="replace", timeout=_PROGRAM_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout + done.stderr


@dataclass(frozen=True, slots=True)
class Surroundings:
    """root: of the file system. which: a program's path. run: a command's output."""

    root: Path = Path("/")
    which: Callable[[str], str | None] = shutil.which
    run: Callable[[Sequence[str]], str | None] = _run

    def text(self, path: str) -> str | None:
        """A file below the root; None where it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace")
        except OSError:
            return None
