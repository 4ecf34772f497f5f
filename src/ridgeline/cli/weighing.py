"""The command that weighs what batching costs against what it brings."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from ridgeline.cli.environment import keyless
from ridgeline.cli.options import options
from ridgeline.core.config import Config, ModelOptions


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
    from ridgeline.lab.grid import FULL, QUICK
    from ridgeline.lab.tradeoffs import run

    raise SystemExit(run(QUICK if quick else FULL, _flags(config.model), keyless(), out, load_seed, sys.argv))


def _flags(model: ModelOptions) -> list[str]:
    """The same options for the servers that are started."""
    given = {f.name: value for f in fields(model) if (value := getattr(model, f.name)) != f.default}
    if model.model is None and model.random_weights is None:
        given["model"] = "demo"
    return [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), str(value))]
