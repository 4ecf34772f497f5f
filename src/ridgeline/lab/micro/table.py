"""Microtable: what `micro` measured, for a terminal. Knows its rows; measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ridgeline.bench.words import plural
from ridgeline.lab.micro.micro import named, verdict

Row = dict[str, Any]
NEWLINE = "\n"
HEADINGS = ("op", "version", "shape", "time", "GB/s", "of ceiling", "of peak", "against the reference", "max error", "")


def cells(row: Row) -> tuple[str, ...]:
    against = row["against"]
    held = "-"
    if against is not None:
        held = f"{against['ratio']:.2f} ({against['low']:.2f} to {against['high']:.2f})"
    return (
        row["op"],
        row["version"],
        named(row["shape"]),
        f"{row['time_ns']['median'] / 1e3:.1f} us",
        f"{row['gb_per_s']:.1f}",
        f"{row['of_bandwidth'] * 100:.0f} % of {row['level']}",
        "-" if row["of_peak"] is None else f"{row['of_peak'] * 100:.1f} %",
        held,
        "not a number" if row["max_error"] is None else f"{row['max_error']:.1g}",
        verdict(row),
    )


def show(console: Console, document: Row) -> None:
    """document: what `micro.run` returns."""
    rows = document["results"]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for i, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if i < 3 else "right")
    for row in rows:
        table.add_row(*cells(row))
    console.print(table, highlight=False)
    for sentence in sentences(rows, document["failures"]):
        console.print(sentence, highlight=False, markup=False)


def sentences(rows: Sequence[Row], failures: Sequence[Row] = ()) -> list[str]:
    """What the numbers say, and what a reader must know to read them."""
    told = [
        f"FAILED: {row['op']} {row['version']} at {named(row['shape'])}: {row['error'].splitlines()[0]}"
        for row in failures
    ]
    wrong = [f"{row['op']} {row['version']} at {named(row['shape'])}" for row in rows if not row["agrees"]]
    if wrong:
        told.append(f"WRONG results, so their times mean nothing: {'; '.join(wrong)}.")
    compared = [row for row in rows if row["against"] is not None]
    if compared:
        verdicts = [verdict(row) for row in compared]
        counts = [f"{verdicts.count(kind)} {kind}" for kind in ("faster", "slower", "undecided") if kind in verdicts]
        held, rounds = compared[0]["against"]["coverage"], compared[0]["against"]["rounds"]
        told.append(
            f"Of {plural(len(compared), 'timing')} of versions: {', '.join(counts) or 'none is right'}. Ratios are of "
            f"times within a round, so below 1 is faster; their intervals hold {held * 100:.1f} % over {rounds} rounds."
        )
    if any(row["of_bandwidth"] > 1 for row in rows):
        told.append(
            "More than 100 % of a level: part of the data was nearer than assumed, or the machine was busier when its "
            "ceilings were measured."
        )
    return told
