"""Counter view: a run file of counters as it looks in a terminal. Knows the file; measures nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ridgeline.core.plaintext import harmless
from ridgeline.lab.counters.counters import COLUMNS, Column

BAR_CELLS = 60
_INKS = ("green", "red", "yellow", "blue", "magenta", "cyan", "white", "bright_red", "bright_yellow", "bright_blue",
         "bright_magenta", "bright_cyan", "bright_black")  # fmt: skip
_MARKS = "█▓▒░"  # so that a bar without colours can be read too
_LEAST_SHARE = 0.0005
_LEAST_NAME_CELLS, _OTHER_CELLS = 20, 75


def show(document: Mapping[str, Any], console: Console) -> None:
    config = document["config"]
    devices = dict.fromkeys(case["device"] for case in document["results"])
    title = f"Hardware counters of {config['model']} on {' and '.join(devices) or 'nothing yet'}"
    console.print(Text(harmless(title), style="bold"))
    gaps = [_missing(case) for case in document["results"]]
    alike = all(gap == gaps[0] for gap in gaps)
    for case, gap in zip(document["results"], gaps, strict=True):
        console.print()
        _case(case, console)
        if not alike:
            _tell(gap, console)
    if alike and gaps:
        console.print()
        _tell(gaps[0], console)
    if document.get("interrupted"):
        console.print("Interrupted: what was not reached is not here.")


def _case(case: Mapping[str, Any], console: Console) -> None:
    what = "a decode step" if case["phase"] == "decode" else "a prefill"
    title = f"{what}: batch {case['batch']}, context {case['context']}, {case['tokens']} tokens"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    table.add_column("counter")
    for heading in ("a step", "a token"):
        table.add_column(heading, justify="right")
    table.add_column("how", overflow="fold")
    counters = case["counters"]
    for column in COLUMNS:
        reading = counters[column.key]
        if reading["value"] is not None:
            table.add_row(*_row(column, reading, case["tokens"]))
    console.print(table)
    for stack in case["stacks"]:
        if stack["shares"] is not None:
            _stack(stack, console)
    if case["kernels"]:
        console.print(_kernels(case["kernels"], console.width))


def _row(column: Column, reading: Mapping[str, Any], tokens: int) -> tuple[str, str, str, str]:
    each = amount(reading["value"] / tokens, column.unit) if column.per_token else ""
    how = "; ".join(filter(None, (reading["source"], reading["note"])))
    return column.heading, amount(reading["value"], column.unit), each, harmless(how)


def _missing(case: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is not there, by the reason why."""
    found = dict[str, list[str]]()
    for column in COLUMNS:
        if case["counters"][column.key]["value"] is None:
            found.setdefault(case["counters"][column.key]["reason"], []).append(column.heading)
    for stack in case["stacks"]:
        if stack["shares"] is None:
            found.setdefault(stack["reason"], []).append(f"stall stack of {stack['source']}")
    return found


def _tell(gap: Mapping[str, Sequence[str]], console: Console) -> None:
    for reason, headings in gap.items():
        said = Text(harmless(f"Not counted: {', '.join(headings)}. "))
        console.print(said.append(harmless(reason[:1].upper() + reason[1:]) + ".", style="dim"))


def _stack(stack: Mapping[str, Any], console: Console) -> None:
    console.print(Text(f"Where {stack['of']} went ({stack['source']})", style="bold"))
    shares: Mapping[str, float] = stack["shares"]
    bar = Text()
    inked = [
        (name, share, _MARKS[n % len(_MARKS)], _INKS[n % len(_INKS)]) for n, (name, share) in enumerate(shares.items())
    ]
    for (_, _, mark, ink), cells in zip(inked, cells_of(list(shares.values())), strict=True):
        bar.append(mark * cells, style=ink)
    console.print(bar)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, share, mark, ink in inked:
        if share < _LEAST_SHARE:
            continue
        table.add_row(Text(mark * 2, style=ink), f"{share:6.1%}", harmless(name))
    console.print(table)
    if stack["note"]:
        console.print(Text(harmless(stack["note"]), style="dim"))


def cells_of(shares: Sequence[float], cells: int = BAR_CELLS) -> list[int]:
    """Cells of a bar for each share; together all of them, because rounding each alone would make bars of many
    lengths."""
    edges = [round(sum(shares[:n]) * cells) for n in range(len(shares) + 1)]
    return [last - first for first, last in itertools.pairwise(edges)]


def _kernels(rows: Sequence[Mapping[str, Any]], width: int) -> Table:
    table = Table(title="Kernels that took longest, of a step", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("kernel", no_wrap=True, max_width=max(_LEAST_NAME_CELLS, width - _OTHER_CELLS))
    for heading in ("launches", "time", "DRAM", "occupied"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("waits most")
    for row in rows:
        stall = row["stall"]
        table.add_row(
            harmless(row["name"]).removeprefix("void "),
            f"{row['launches']:g}",
            _or_dash(row["ns"], "ns"),
            _or_dash(row["dram_bytes"], "B"),
            _or_dash(row["occupancy_pct"], "%"),
            "-" if stall is None else f"{stall['share']:.0%} {harmless(stall['reason'])}",
        )
    return table


def _or_dash(value: float | None, unit: str) -> str:
    return "-" if value is None else amount(value, unit)


_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_TIMES = ((1e9, "s"), (1e6, "ms"), (1e3, "us"))


def amount(value: float, unit: str) -> str:
    """Three digits that matter, with the unit that suits."""
    if unit == "%":
        return f"{value:.1f} %"
    if unit == "J":
        return f"{value * 1000:.3g} mJ" if value < 1 else f"{value:.3g} J"
    if unit == "ns":
        return next((f"{value / size:.3g} {name}" for size, name in _TIMES if value >= size), f"{value:.3g} ns")
    scaled = ((value / size, name) for size, name in _SCALES if value >= size)
    number, name = next(scaled, (value, ""))
    return f"{number:.3g} {name}{unit}".rstrip()
