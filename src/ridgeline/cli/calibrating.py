"""The command that measures what this machine can do at most."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from ridgeline.cli.environment import cache_dir
from ridgeline.cli.laboratory import progress_bar, written
from ridgeline.core.config import Config


def calibrate(
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda", help="Which device; auto takes a GPU that torch can use.")
    ] = "auto",
    kept: Annotated[
        bool,
        typer.Option("--kept", help="Show what was measured before, if there is something, and measure otherwise."),
    ] = False,
    json_file: Annotated[
        Optional[Path],  # noqa: UP045  (typer reads it at run time)
        typer.Option("--json", help="Write the figures into this file as well.", dir_okay=False),
    ] = None,
) -> None:
    """Measure the ceilings of this machine: how fast it reads from each level of memory, multiplies and launches.

    Every later prediction is divided by these figures. They are kept (see `ridgeline cache`) until they are measured
    again: after a change of hardware, driver or torch, or if something else was running. Takes about ten seconds; leave
    the machine alone meanwhile.

    Example: ridgeline calibrate --json ceilings.json
    """
    from rich.console import Console

    from ridgeline.core.ceilings import to_json
    from ridgeline.core.records import provenance
    from ridgeline.device.choose import choose
    from ridgeline.lab.calibration import show
    from ridgeline.lab.machine import ceilings_of, ceilings_path

    where = Config.from_mapping({"device": device}).model.device
    about, chosen, cache = provenance(sys.argv), choose(where, "auto"), cache_dir()
    with progress_bar() as progress:
        found = ceilings_of(chosen, cache, progress, fresh=not kept)
    show(Console(), found, ceilings_path(cache, chosen))
    if json_file is not None:
        written(json_file, "ceilings", about, {"device": where, "kept": kept}, to_json(found))
