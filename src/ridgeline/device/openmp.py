"""OpenMP: which runtime this process has. Knows torch's folder; compiles nothing.

Two runtimes in one process keep a pool of threads each: they fight for the cores, and torch's number of threads reaches
one of them only. So what is compiled here is linked to the very file that torch brought along.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

_RUNTIME = re.compile(r"lib(?:gomp|i?omp5?)(?:[-.][^/]*)?\.(?:so|dylib)(?:\.\d+)*")
_PATTERNS = ("lib/libgomp*", "lib/libiomp5*", "lib/libomp*", "../torch.libs/libgomp*", ".dylibs/libomp*")


def loaded(maps: Path = Path("/proc/self/maps")) -> list[Path]:
    """The runtimes that this process has loaded, in the order of their addresses; [] where the system does not say."""
    try:
        lines = maps.read_text(errors="replace").splitlines()
    except OSError:
        return []
    paths = (Path(fields[5]) for fields in (line.split(maxsplit=5) for line in lines) if len(fields) == 6)
    return list(dict.fromkeys(path for path in paths if _RUNTIME.fullmatch(path.name)))


def runtime(maps: Path = Path("/proc/self/maps"), torch_folder: Path = Path(torch.__file__).parent) -> Path | None:
    """The runtime that torch uses; None where it brought none, so that the compiler's own may be taken."""
    found = loaded(maps) or [path for pattern in _PATTERNS for path in sorted(torch_folder.glob(pattern))]
    return found[0] if found else None
