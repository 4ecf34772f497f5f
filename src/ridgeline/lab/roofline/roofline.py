"""Roofline: a ledger drawn into a folder, as a page, as pictures and as the run file behind them. Measures nothing."""

from __future__ import annotations

from pathlib import Path

from ridgeline.core.errors import ConfigError
from ridgeline.core.records import write_run
from ridgeline.core.report import reported
from ridgeline.lab.ledger.file import Ledger, to_document
from ridgeline.lab.report import page
from ridgeline.lab.roofline.page import told
from ridgeline.lab.roofline.printed import save
from ridgeline.lab.roofline.roofs import Roofline

PAGE, RUN_FILE, PICTURES = "index.html", "roofline.json", ("roofline.svg", "roofline.png")


def make_folder(out: Path) -> None:
    """Before minutes of measuring, not after. Raises ConfigError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {out}: it cannot be made ({error.strerror or error})") from error


def write(ledger: Ledger, out: Path) -> tuple[Roofline, tuple[Path, ...]]:
    """The files' paths, the page first. Raises ConfigError."""
    roofline = Roofline.of(ledger)
    paths = tuple(out / name for name in (PAGE, RUN_FILE, *PICTURES))
    try:
        run = reported(to_document(ledger), told(roofline))
        write_run(out / RUN_FILE, run)
        (out / PAGE).write_text(page(run), encoding="utf-8")
        save(roofline, tuple(out / name for name in PICTURES))
    except OSError as error:
        raise ConfigError(f"--output {out}: it cannot be written ({error.strerror or error})") from error
    return roofline, paths
