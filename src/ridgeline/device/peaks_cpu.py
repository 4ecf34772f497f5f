"""Peaks of a CPU: read rates from the nearest cache to memory, matrix products, and the price of one more operation.
Knows sizes and formats; how bytes are read stands in reading.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ridgeline.core.ceilings import Ceilings, Level, Rate
from ridgeline.device import reading
from ridgeline.device.caches import Cache, data_caches
from ridgeline.device.cpu import CpuDevice
from ridgeline.device.reading import Reader
from ridgeline.device.repeats import Budget, rate, samples, spread

MEMORY = "memory"
FORMATS = (torch.float32, torch.bfloat16, torch.float16, torch.int8)
# A format that is so much slower than float32 has no kernel of its own here: no ceiling of this machine, and minutes to
# measure.
_HOPELESS = 16
_PROBES = 10
_LONGEST_PRODUCT_S = 0.4
_STEADY, _IDLE = 0.8, 0.5
_UNKNOWN_CACHE_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Rung:
    """A level to measure, with as many bytes as lie comfortably in it and in none before it."""

    name: str
    capacity_bytes: int | None
    total_bytes: int


def measure(
    device: CpuDevice,
    cache: Path,
    progress: Callable[[str, int, int], None],
    provenance: Mapping[str, Any],
    budget: Budget,
    reader: Reader | None = None,
    caches: Sequence[Cache] | None = None,
) -> Ceilings:
    """reader, caches: otherwise those of this machine."""
    found = data_caches() if caches is None else tuple(caches)
    room = min(budget.memory_bytes, device.free_memory_bytes() // 2)
    busy = _others(device.threads)
    rungs, notes = ladder(found, device.threads, room)
    with reader or reading.choose(device.threads, cache) as opened, torch.inference_mode():
        levels: list[Level] = []
        matrix: dict[str, Rate] = {}
        whole = len(rungs) + len(FORMATS) + 1
        for done, rung in enumerate(rungs):
            progress(f"reading {rung.name}", done, whole)
            levels.append(Level(rung.name, rung.capacity_bytes, opened.rate(rung.total_bytes, budget)))
        for done, kind in enumerate(FORMATS, len(rungs)):
            progress(f"{_name(kind)} products", done, whole)
            _matrix(kind, matrix, notes, budget)
        progress("launches", whole - 1, whole)
        launch = _launch(budget)
    progress("done", whole, whole)
    notes += [*opened.notes, *busy, *disturbed({level.name: level.read for level in levels} | matrix)]
    return Ceilings(
        device=device.name,
        threads=device.threads,
        levels=tuple(levels),
        matrix=matrix,
        launch_ns=launch,
        graph_launch_ns=None,
        to_device=None,
        datasheet=None,
        notes=tuple(notes),
        provenance=dict(provenance),
    )


def ladder(caches: Sequence[Cache], threads: int, room_bytes: int) -> tuple[list[Rung], list[str]]:
    """Half of every level, and for memory four times the last cache, as far as there is room; and what is second-best
    about it."""
    rungs: list[Rung] = []
    notes: list[str] = []
    before = 0
    for cache in caches:
        capacity = cache.capacity_bytes(threads)
        # A cache may hold only what fell out of the one before it, so its half must be more than that one.
        half, most = capacity // 2, capacity * 3 // 4
        total = half if half >= before * 3 // 2 else most
        if total < before * 5 // 4:
            notes.append(
                f"{cache.name} was left out: its {_mib(capacity)} are hardly more than the {_mib(before)} of the level "
                "before it, so the two cannot be told apart."
            )
            continue
        rungs.append(Rung(cache.name, capacity, total))
        before = capacity
    if not caches:
        notes.append("The kernel does not say how large the caches are, so only memory was measured.")
    wanted = 4 * (before or _UNKNOWN_CACHE_BYTES)
    total = min(wanted, room_bytes)
    if total < wanted:
        notes.append(
            f"Memory was measured with {_mib(total)} instead of {_mib(wanted)} (four times the last cache), so part of "
            "it came from the cache; run `ridgeline calibrate` again with more free memory."
        )
    return [*rungs, Rung(MEMORY, None, total)], notes


def _matrix(kind: torch.dtype, found: dict[str, Rate], notes: list[str], budget: Budget) -> None:
    """FLOP/s of square products; of the sizes that are tried, the best."""
    name, plain = _name(kind), found.get("float32")
    enough = 0.0 if plain is None else plain.median / _HOPELESS
    try:
        probe = _probe(kind, budget.matrix_sizes[0], enough)
    except RuntimeError as error:
        notes.append(f"{name} products were left out: torch does not compute them here ({_first_line(error)}).")
        return
    if plain is not None and probe < enough:
        notes.append(
            f"{name} products were left out: torch has no quick kernel for them here (about {plain.median / probe:.0f} "
            "times slower than float32)."
        )
        return
    first, *larger = budget.matrix_sizes
    sizes = [first, *(rows for rows in larger if 2 * rows**3 / probe <= _LONGEST_PRODUCT_S)]
    tried = [rate(2 * rows**3, product(kind, rows), budget) for rows in sizes]
    found[name] = max(tried, key=lambda measured: measured.median)


def _probe(kind: torch.dtype, rows: int, enough: float) -> float:
    """FLOP/s of the quickest of a few products; the first also chooses a kernel, and any may be disturbed."""
    once, best = product(kind, rows), 0.0
    once(1)
    for _ in range(_PROBES):
        best = max(best, 2 * rows**3 / max(1, once(1)) * 1e9)
        if enough and best >= enough:
            break
    return best


def product(kind: torch.dtype, rows: int) -> Callable[[int], int]:
    """Square matrices of random values, multiplied so many times; nanoseconds."""
    generator = torch.Generator().manual_seed(rows)
    shape = (rows, rows)
    if kind is torch.int8:
        a, b = (torch.randint(-128, 128, shape, dtype=kind, generator=generator) for _ in range(2))
        multiply = torch._int_mm
    else:
        a, b = (torch.randn(shape, generator=generator).to(kind) for _ in range(2))
        multiply = torch.mm

    def run(times: int) -> int:
        begun = time.perf_counter_ns()
        for _ in range(times):
            multiply(a, b)
        return time.perf_counter_ns() - begun

    return run


def _launch(budget: Budget) -> Rate:
    """Nanoseconds of one more operation on a few values, called from Python."""
    values = torch.randn(16)

    def run(times: int) -> int:
        add = values.add_
        begun = time.perf_counter_ns()
        for _ in range(times):
            add(1.0)
        return time.perf_counter_ns() - begun

    return spread(samples(run, budget))


def _others(threads: int) -> list[str]:
    """Before anything of ours ran: a program that takes its share all the time makes figures low but steady."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load <= _IDLE * threads:
        return []
    return [
        f"In the minute before, {load:.1f} threads of this machine were busy, so the figures may be too low; run "
        "`ridgeline calibrate` again when it is idle."
    ]


def disturbed(figures: Mapping[str, Rate]) -> list[str]:
    unsteady = [name for name, figure in figures.items() if figure.low < _STEADY * figure.median]
    if not unsteady:
        return []
    return [
        f"Something else was running: the figures of {', '.join(unsteady)} vary by more than "
        f"{100 * (1 - _STEADY):.0f} %; run `ridgeline calibrate` again on an idle machine."
    ]


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip()[:200]


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
