"""Trade-offs: from the measurement to a run file, tables and the page. Knows no argv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ridgeline.core.errors import ConfigError, RidgelineError
from ridgeline.core.records import provenance, write_run
from ridgeline.core.report import reported
from ridgeline.lab.report import page
from ridgeline.lab.tradeoffs.experiments import Bench, Interrupted, Results, latency, memory, padding
from ridgeline.lab.tradeoffs.grid import Grid
from ridgeline.lab.tradeoffs.page import told
from ridgeline.lab.tradeoffs.views import VIEWS

FORMAT = 1
EXIT_INTERRUPTED = 130
NO_BREAK = "\u00a0"


def run(
    grid: Grid,
    model_flags: Sequence[str],
    environment: Mapping[str, str],
    out: Path,
    seed: int,
    command: list[str],
    console: Console | None = None,
) -> int:
    """Measures all three and writes OUT/tradeoffs.json and OUT/tradeoffs.html. The exit code; 130 for Ctrl-C, after
    which what was measured is still written. environment: of the servers.

    Raises Unavailable and ConfigError, also after what was measured before has been written.
    """
    console = console or Console()
    _make_folder(out)
    about = provenance(command)
    results, interrupted, failure = Results(), False, None
    try:
        _measure(Bench(model_flags, environment, seed, lambda _what, _done: None), grid, results, console)
    except RidgelineError as error:
        failure = error
        console.print("The measurement failed; what was measured by then is written.", highlight=False)
    except (Interrupted, KeyboardInterrupt):
        interrupted = True
        console.print("Interrupted; what was measured by then is written.", highlight=False)
    document = {
        "format": FORMAT,
        "provenance": about,
        "config": {"grid": asdict(grid), "model_flags": list(model_flags), "seed": seed},
        "interrupted": interrupted,
        "error": None if failure is None else str(failure),
        "results": asdict(results),
    }
    try:
        write_run(out / "tradeoffs.json", document)  # before its words are made, so that no fault there takes it
        document = reported(document, told(document))
        write_run(out / "tradeoffs.json", document)
        (out / "tradeoffs.html").write_text(page(document), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {out}: it cannot be written ({error})") from error
    print_views(console, document)
    console.print(f"Run file: {out / 'tradeoffs.json'}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Page: {out / 'tradeoffs.html'}", markup=False, highlight=False, soft_wrap=True)
    if failure is not None:
        raise failure
    return EXIT_INTERRUPTED if interrupted else 0


def _make_folder(out: Path) -> None:
    """Before minutes of measuring, not after."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: it cannot be made ({error})") from error


def _measure(bench: Bench, grid: Grid, results: Results, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as bar:
        task = bar.add_task("", total=grid.steps)

        def show(what: str, done: int) -> None:
            bar.update(task, description=what, advance=done)

        shown = replace(bench, show=show)
        for experiment in (latency, padding, memory):
            experiment(shown, grid, results)


def print_views(console: Console, document: dict[str, Any]) -> None:
    """The page's tables and readings, as text."""
    for view in VIEWS:
        rows = view.rows(document["results"])
        if not rows:
            continue
        # Narrow, so that ordinary numbers fit into 80 columns.
        table = Table(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), title=view.title,
            title_justify="left",
        )  # fmt: skip
        for i, column in enumerate(view.columns):
            table.add_column(column.heading, justify="left" if i == 0 else "right", no_wrap=i == 0)
        for row in rows:
            table.add_row(*(column.show(row).replace(" ", NO_BREAK) for column in view.columns))
        console.print(table, highlight=False)
        console.print()
        console.print(view.reading(rows), highlight=False)
        console.print()
