"""Calibration: measured ceilings as a person reads them. Knows Ceilings; measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from ridgeline.bench.words import human_bytes
from ridgeline.core.ceilings import Ceilings, Rate

_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
DATASHEET = "datasheet"


def show(console: Console, ceilings: Ceilings, path: Path) -> None:
    """Tables of what was measured, where it is kept, and what is second-best about it."""
    _say(console, f"{ceilings.device}: measured ceilings")
    console.print()
    sheet = ceilings.datasheet
    beside = (DATASHEET,) if sheet else ()
    console.print(_table(("read from", "holds", "median (low - high)", *beside), _levels(ceilings)), highlight=False)
    console.print()
    headings = ("products in", "median (low - high)", "ridge point", *beside)
    console.print(_table(headings, _matrix(ceilings)), highlight=False)
    console.print()
    console.print(_table(("other", "median (low - high)"), _others(ceilings)), highlight=False)
    console.print()
    _say(
        console, "The ridge point is the arithmetic intensity, in FLOP a byte from memory, from which on products bind."
    )
    if sheet is not None:
        _say(
            console, f"Datasheet: {sheet.source} ({sheet.name}), dense rates; for comparison, nothing is divided by it."
        )
    for note in ceilings.notes:
        _say(console, f"Note: {note}")
    _say(console, f"Kept in {path}")


def _levels(ceilings: Ceilings) -> list[tuple[str, ...]]:
    sheet = ceilings.datasheet
    rows: list[tuple[str, ...]] = []
    for level in ceilings.levels:
        holds = "-" if level.capacity_bytes is None else human_bytes(level.capacity_bytes)
        said = "-" if sheet is None or level is not ceilings.memory else si(sheet.bytes_per_s, "B/s")
        rows.append((level.name, holds, _spread(level.read, "B/s"), *((said,) if sheet else ())))
    return rows


def _matrix(ceilings: Ceilings) -> list[tuple[str, ...]]:
    sheet = ceilings.datasheet
    rows: list[tuple[str, ...]] = []
    for name, measured in ceilings.matrix.items():
        said = sheet.flops_per_s.get(name) if sheet else None
        cell = "-" if said is None else si(said, "FLOP/s")
        ridge = f"{ceilings.ridge(name):.1f} FLOP/B"
        rows.append((name, _spread(measured, "FLOP/s"), ridge, *((cell,) if sheet else ())))
    return rows


def _others(ceilings: Ceilings) -> list[tuple[str, ...]]:
    rows = [("one more operation", _microseconds(ceilings.launch_ns))]
    if ceilings.graph_launch_ns is not None:
        rows.append(("one more in a graph", _microseconds(ceilings.graph_launch_ns)))
    if ceilings.to_device is not None:
        rows.append(("host to device", _spread(ceilings.to_device, "B/s")))
    return [tuple(row) for row in rows]


def si(value: float, unit: str) -> str:
    """`41.5 GB/s`, `1.98 PFLOP/s`: three digits, powers of ten."""
    for size, letter in _UNITS:
        if value >= size:
            return f"{_three(value / size)} {letter}{unit}"
    return f"{_three(value)} {unit}"


def _spread(rate: Rate, unit: str) -> str:
    """All three in the median's unit."""
    size, letter = next(((s, letter) for s, letter in _UNITS if rate.median >= s), (1.0, ""))
    low, high = _three(rate.low / size), _three(rate.high / size)
    return f"{_three(rate.median / size)} ({low} - {high}) {letter}{unit}"


def _microseconds(time: Rate) -> str:
    return f"{time.median / 1e3:.2f} ({time.low / 1e3:.2f} - {time.high / 1e3:.2f}) us"


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
