"""The command that times operations one at a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ridgeline.cli.environment import cache_dir
from ridgeline.cli.laboratory import progress_bar

EXIT_INTERRUPTED = 130


def micro(
    op: Annotated[list[str] | None, typer.Option(help="Only this operation; may be given again.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Weights: auto, float32, bfloat16 or float16.")] = "auto",
    rounds: Annotated[int, typer.Option(help="Rounds of the reference and all versions in turn, at least 5.")] = 7,
    seed: Annotated[int, typer.Option(help="Same seed, same arguments.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write a run file.", dir_okay=False)] = None,
) -> None:
    """Time every operation alone, at the sizes of GPT-2 124M, each version against its reference.

    Shows time, bytes a second and their share of this machine's ceilings, the ratio to the reference with its interval,
    and the distance from the definition, so that a fast wrong operation is seen. Weights go round through more than the
    last cache holds; what a model finds in its cache is in the cache here too. Attention is not among the operations:
    it is a seam of its own with a cache behind it, and `ridgeline roofline` has its time within a step.

    Example: ridgeline micro --op linear --op layer_norm --dtype float32
    """
    from rich.console import Console

    from ridgeline.bench.options import check_folder
    from ridgeline.core.config import Config
    from ridgeline.core.records import write_run
    from ridgeline.device.choose import choose
    from ridgeline.lab.machine import ceilings_of
    from ridgeline.lab.micro.micro import Order, run
    from ridgeline.lab.micro.table import show

    order = Order.of(op or [], rounds, seed)
    check_folder(json)
    asked = Config.from_mapping({"device": device, "dtype": dtype}).model
    chosen = choose(asked.device, asked.dtype)
    with progress_bar() as progress:
        ceilings = ceilings_of(chosen, cache_dir(), progress)
        found = run(order, chosen, ceilings, progress, sys.argv)
    if json is not None:
        write_run(json, found)
    show(Console(), found)
    raise SystemExit(EXIT_INTERRUPTED if found["interrupted"] else 0)
