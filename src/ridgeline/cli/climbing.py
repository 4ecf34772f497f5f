"""The command that climbs from the naive loop to the full engine and says what each switch gained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from ridgeline.cli.environment import keyless
from ridgeline.cli.laboratory import order_of, progress_bar
from ridgeline.cli.options import options
from ridgeline.core.config import Config


@options("model")
def ladder(
    config: Config,
    output: Annotated[Path, typer.Option(help="A folder for the run file, the table and the page.")] = Path("ladder"),
    rungs: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--rungs", "--only", help="Only these, separated by commas, for example: kv-cache,continuous."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often each rung is measured, at least 5.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="A smaller load: about a minute with demo.")] = False,
    load_seed: Annotated[int, typer.Option(help="Same seed, same requests.", min=0)] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure anew. Default: go on with the run in the folder.")
    ] = False,
    time_box: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="Seconds that a run should take, about. Default: 280, on a GPU 460; with --quick less.", min=1
        ),
    ] = None,
    source: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", help="Measure nothing: draw this run file (DIR/ladder.json) again.", dir_okay=False),
    ] = None,
) -> None:
    """Climb from the naive loop to the full engine, one switch a rung, and say what each gained on this machine.

    All rungs serve the same requests in every round, as many as each has time for; their tokens are compared, and a
    rung pays or costs only where every round agrees. Writes DIR/ladder.json, DIR/ladder.md and DIR/index.html, which
    needs no network. Ctrl-C keeps the rounds measured so far, and the same command goes on from them. Ends with 1 if a
    rung made wrong tokens.

    Example: ridgeline ladder --model demo --output ladder
    """
    from rich.console import Console

    from ridgeline.lab.ladder.climb import Asked, run, tell
    from ridgeline.lab.ladder.file import read
    from ridgeline.lab.ladder.seams import Seams

    console = Console()
    if source is not None:
        raise SystemExit(tell(read(source), output, console))
    names = [] if rungs is None else [name.strip() for name in rungs.split(",") if name.strip()]
    asked = Asked(rounds, names, load_seed, quick, fresh, time_box)
    asked.chosen()  # before a model is looked for
    order = order_of(config)
    with progress_bar() as progress:
        code = run(order, asked, output, sys.argv, progress, console, Seams.found(keyless()))
    raise SystemExit(code)
