"""The command that draws a step's operations under the roofs of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline.cli.accounting import EXIT_INTERRUPTED, measured
from ridgeline.cli.options import options
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.options import ModelOptions

if TYPE_CHECKING:
    from ridgeline.lab.ledger.measuring import LedgerOrder

BATCHES = (1, 2, 4, 8, 16, 32)
CONTEXT, STEPS, ROUNDS, PREFILL = 256, 24, 5, 512


@options("model")
def roofline(
    config: Config,
    batch: Annotated[
        list[int] | None,
        typer.Option(help="Sequences in a decode step; may be given again. Default: 1, 2, 4, 8, 16, 32."),
    ] = None,
    context: Annotated[int | None, typer.Option(help=f"Tokens that each of them has. Default: {CONTEXT}.")] = None,
    steps: Annotated[int | None, typer.Option(help=f"Steps of a round. Default: {STEPS}.")] = None,
    rounds: Annotated[int | None, typer.Option(help=f"Rounds, at least 5. Default: {ROUNDS}.")] = None,
    prefill: Annotated[
        int | None, typer.Option(help=f"Tokens of a prompt computed at once; 0: none. Default: {PREFILL}.")
    ] = None,
    drawn: Annotated[
        Path | None, typer.Option("--from", help="Draw this ledger's run file; measure nothing.", dir_okay=False)
    ] = None,
    output: Annotated[Path, typer.Option(help="A folder for the page and the pictures.", file_okay=False)] = Path(
        "roofline"
    ),
) -> None:
    """Draw every operation and whole steps under this machine's measured roofs: which ceiling binds, and how far it is.

    Writes index.html (interactive, needs no network), roofline.svg, roofline.png and roofline.json, the ledger behind
    them, into the folder. Predicted is from shapes and measured ceilings, the height of a point is timed. Without
    --model it takes GPT-2 124M, with random weights if it is not cached.

    Example: ridgeline roofline --model demo --batch 1 --batch 32 --output roofline
    """
    from rich.console import Console

    from ridgeline.lab.ledger.file import read_ledger
    from ridgeline.lab.roofline.roofline import RUN_FILE, make_folder, write
    from ridgeline.lab.roofline.words import readings, warnings

    if drawn is not None:
        given = {"batch": batch, "context": context, "steps": steps, "rounds": rounds, "prefill": prefill}
        _only_draws(config.model, given)
        found = read_ledger(drawn)
        make_folder(output)
    else:
        order = _order(batch, context, steps, rounds, prefill)
        make_folder(output)
        found = measured(config, order, output / RUN_FILE, counters=False)
    shown, paths = write(found, output)
    console = Console()
    for sentence in (*warnings(shown), *readings(shown)):
        console.print(sentence, highlight=False, markup=False)
    for path in paths:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)
    if drawn is None and found.interrupted:
        raise SystemExit(EXIT_INTERRUPTED)


def _order(
    batch: list[int] | None, context: int | None, steps: int | None, rounds: int | None, prefill: int | None
) -> LedgerOrder:
    from ridgeline.lab.ledger.measuring import LedgerOrder

    return LedgerOrder(
        batches=tuple(BATCHES if batch is None else sorted(set(batch))),
        context=CONTEXT if context is None else context,
        steps=STEPS if steps is None else steps,
        rounds=ROUNDS if rounds is None else rounds,
        prefill_tokens=PREFILL if prefill is None else prefill,
    )


def _only_draws(model: ModelOptions, given: Mapping[str, object]) -> None:
    changed = {f.name: getattr(model, f.name) for f in fields(model) if getattr(model, f.name) != f.default}
    for name, value in (changed | dict(given)).items():
        if value is not None:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"--from draws what was measured; {flag} asks for something new: leave one of them out")
