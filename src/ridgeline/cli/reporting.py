"""The command that makes a page of a run file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="A run file of ladder, roofline, ledger, tradeoffs or bench.")],
    output: Annotated[
        Path | None, typer.Option(help="The page. Default: beside the run file, with .html.", dir_okay=False)
    ] = None,
) -> None:
    """Write the server's page with this run file in it: charts, sentences and numbers, without a server and a network.

    The sentences are made anew from the numbers. The page's Report section opens what this writes, too.

    Example: ridgeline report run.json --output run.html
    """
    from ridgeline.lab.reporting import write_page

    out = run.with_suffix(".html") if output is None else output
    title = write_page(run, out)
    print(f"{title}: {out}")
