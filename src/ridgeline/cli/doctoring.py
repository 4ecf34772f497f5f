"""The command that says what this machine offers."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from ridgeline.cli.environment import cache_dir, hub_access
from ridgeline.cli.laboratory import written


def doctor(
    json_file: Annotated[
        Optional[Path],  # noqa: UP045  (typer reads it at run time)
        typer.Option("--json", help="Write the findings into this file as well.", dir_okay=False),
    ] = None,
) -> None:
    """Say what this machine offers for measuring, what is blocked, and the exact line that enables it.

    Nothing is changed and nothing is measured. A missing tool is no error: what needs it says so and leaves it out.

    Example: ridgeline doctor
    """
    from rich.console import Console

    from ridgeline.core.records import provenance
    from ridgeline.lab.doctor.doctor import Doctor, examine, show
    from ridgeline.lab.doctor.surroundings import Surroundings

    about = provenance(sys.argv)
    findings = examine(Doctor(Surroundings(), cache_dir(), hub_access()))
    show(Console(), findings)
    if json_file is not None:
        written(json_file, "doctor", about, {}, [asdict(found) for found in findings])
