"""The command that weighs what batching costs against what it brings."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ridgeline.cli.environment import keyless
from ridgeline.cli.options import model_flags, options
from ridgeline.core.config import Config


@options("model")
def tradeoffs(
    config: Config,
    out: Annotated[Path, typer.Option(help="A folder for the run file and the page.", file_okay=False)] = Path(
        "tradeoffs"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer settings: about two minutes.")] = False,
    load_seed: Annotated[int, typer.Option(help="Same seed, same requests.")] = 0,
) -> None:
    """Measure the trade-offs of batching on this machine, as tables and one HTML page that needs no network.

    Latency against throughput for every policy, window and batch limit; padding against the spread of prompt lengths;
    memory against batch size. Starts its own servers, one after the other. Without --model it takes the bundled one.

    Example: ridgeline tradeoffs --quick --out tradeoffs
    """
    from ridgeline.lab.tradeoffs.grid import FULL, QUICK
    from ridgeline.lab.tradeoffs.tradeoffs import run

    model = config.model
    if model.model is None and model.random_weights is None:
        model = replace(model, model="demo")
    raise SystemExit(run(QUICK if quick else FULL, model_flags(model), keyless(), out, load_seed, sys.argv))
