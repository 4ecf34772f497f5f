"""Footprint: the memory that a tree of processes really has. Knows operating systems; knows no model."""

from __future__ import annotations

import contextlib
import shutil
import subprocess

import psutil

from ridgeline.lab.tradeoffs.children import process_tree

QUERY_TIMEOUT_S = 20.0


def resident_bytes(pid: int) -> int:
    """RSS of the process and all below it, summed: pages of libraries that they share count once for each."""
    total = 0
    for process in process_tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def gpu_bytes(pid: int) -> int | None:
    """What the driver says the tree holds on all GPUs; None where there is no NVIDIA GPU or the driver cannot tell."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_gpu(done.stdout, {process.pid for process in process_tree(pid)})


def parse_gpu(text: str, pids: set[int]) -> int | None:
    """Lines `pid, MiB`. None where none of the pids is listed: inside a container the numbers are the host's."""
    found = []
    for line in text.splitlines():
        pid, _, mib = line.partition(",")
        if pid.strip().isdigit() and mib.strip().isdigit() and int(pid) in pids:
            found.append(int(mib) << 20)
    return sum(found) if found else None
