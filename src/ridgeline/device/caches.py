"""Caches: which CPUs and caches there are, as the kernel tells it. Knows files; measures nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/sys/devices/system/cpu")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class Cache:
    """A level: its name, the bytes of one of its kind, and how many of them the allowed cores have."""

    name: str
    size_bytes: int
    instances: int

    def capacity_bytes(self, threads: int) -> int:
        """What threads on different cores can hold together."""
        return self.size_bytes * min(threads, self.instances)


def data_caches(system: Path = SYSTEM, cpus: set[int] | None = None) -> tuple[Cache, ...]:
    """Nearest first, of the CPUs that this process may use; empty where the kernel does not say. Where cores differ,
    the smaller cache counts."""
    sizes: dict[int, set[int]] = {}
    shared: dict[int, set[str]] = {}
    for cpu in sorted(_allowed() if cpus is None else cpus):
        for folder in sorted((system / f"cpu{cpu}" / "cache").glob("index*")):
            level, size = _word(folder / "level"), _size(_word(folder / "size"))
            if level.isdigit() and size and _word(folder / "type") != "Instruction":
                sizes.setdefault(int(level), set()).add(size)
                shared.setdefault(int(level), set()).add(_word(folder / "shared_cpu_list") or str(cpu))
    return tuple(Cache(f"L{level}", min(sizes[level]), len(shared[level])) for level in sorted(sizes))


def cores_first(system: Path = SYSTEM, cpus: set[int] | None = None) -> list[int]:
    """The CPUs that this process may use, in the order in which threads should take them: one of every core, then the
    others of the same cores."""
    first: dict[str, int] = {}
    others: list[int] = []
    for cpu in sorted(_allowed() if cpus is None else cpus):
        core = _word(system / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu)
        if first.setdefault(core, cpu) != cpu:
            others.append(cpu)
    return [*first.values(), *others]


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _word(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _size(text: str) -> int:
    number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1)
    return int(number) * unit if number.isdigit() else 0
