"""Reporting: from a run file of any kind that has a report to the page. Reads and checks; measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ridgeline.bench.told import told as told_serve
from ridgeline.core.errors import ConfigError
from ridgeline.core.report import Report, bare, reported
from ridgeline.lab import runfiles
from ridgeline.lab.benched import told_offline, told_step
from ridgeline.lab.ladder.file import check_shape
from ridgeline.lab.ladder.page import told as told_ladder
from ridgeline.lab.ledger.file import from_document
from ridgeline.lab.report import page
from ridgeline.lab.roofline.page import told as told_roofline
from ridgeline.lab.roofline.roofs import Roofline
from ridgeline.lab.tradeoffs.page import told as told_tradeoffs

Run = Mapping[str, Any]


def read_reported(path: Path) -> dict[str, Any]:
    """The run file with the report that its numbers make; one that it had is dropped. Raises ConfigError."""
    kind, found = runfiles.read_any(path)
    run = bare(found)
    if kind not in TELLERS:
        raise ConfigError(f"{path}: a run file of kind '{kind}'; there are reports of: {', '.join(TELLERS)}")
    try:
        return reported(run, TELLERS[kind](path, run))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"{path}: parts of the run file are missing or damaged ({error!r}); measure again") from error


def write_page(source: Path, out: Path) -> str:
    """The report's title. Raises ConfigError."""
    run = read_reported(source)
    try:
        out.write_text(page(run), "utf-8")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written ({error.strerror or error})") from error
    return str(run["report"]["title"])


def _ladder(path: Path, run: Run) -> Report:
    check_shape(path, run)
    return told_ladder(run)


TELLERS: dict[str, Callable[[Path, Run], Report]] = {
    "ladder": _ladder,
    "ledger": lambda path, run: told_roofline(Roofline.of(from_document(str(path), run))),
    "tradeoffs": lambda _, run: told_tradeoffs(dict(run)),
    "bench serve": lambda _, run: told_serve(run),
    "bench offline": lambda _, run: told_offline(run),
    "bench step": lambda _, run: told_step(run),
}
