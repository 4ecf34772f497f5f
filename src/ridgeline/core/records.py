"""Run files: what was measured, on what, with which code. Knows no measurement.

A run file is one JSON object: `provenance` (commit, dirty flag, machine, library versions, time, command), `config`,
and `results`. Reports and tables are made from run files, never from memory.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

LIBRARIES = ("ridgeline", "torch", "numpy", "transformers", "tokenizers", "aiohttp")


def provenance(command: list[str] | None = None) -> dict[str, Any]:
    """Everything about a run that its numbers depend on and its config does not say. Taken when the run begins."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "gpus": gpu_names(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name)) is not None},
    }


def cpu_name() -> str:
    """The processor as the system names it, with its family and model: vendors reuse a name for several designs."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    if "model name" not in facts:
        return platform.machine()
    return f"{facts['model name']} (family {facts.get('cpu family')}, model {facts.get('model')})"


def gpu_names() -> list[str]:
    """NVIDIA's, as the driver's own tool names them; none where there is no such tool or it does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def write_run(path: Path, run: dict[str, Any]) -> None:
    """Write atomically: a reader sees the whole file or none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, because a rename is atomic only within one file system.
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _git(*arguments: str) -> str | None:
    try:
        here = Path(__file__).parent
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    from importlib import metadata  # takes 20 ms, and every command imports this file

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
