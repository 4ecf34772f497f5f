"""The command that keeps the books of a step: predicted, timed and counted, and where the rest went."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ridgeline.cli.environment import cache_dir, keyless
from ridgeline.cli.laboratory import numbers, order_of, progress_bar
from ridgeline.cli.options import model_flags, options
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.options import ModelOptions

if TYPE_CHECKING:
    from ridgeline.build import EngineOrder
    from ridgeline.lab.ledger.entries import Step
    from ridgeline.lab.ledger.file import Ledger
    from ridgeline.lab.ledger.measuring import LedgerOrder
    from ridgeline.lab.machine import Progress
    from ridgeline.lab.rig import Workbench

BATCHES = (1, 8, 32)
EXIT_INTERRUPTED = 130
_WIDE = 150  # of a table in a pipe or a file, where nobody turns the window


@options("model")
def ledger(
    config: Config,
    batch: Annotated[
        Optional[list[str]],  # noqa: UP045  (typer reads it at run time)
        typer.Option(metavar="N[,N...]", help="Sequences in a decode step. Default: 1,8,32."),
    ] = None,
    context: Annotated[int, typer.Option(help="Tokens that each of them has before it.")] = 256,
    steps: Annotated[int, typer.Option(help="Steps of a round, with regions timed and without, each.")] = 24,
    rounds: Annotated[int, typer.Option(help="Rounds, at least 5.")] = 5,
    prefill: Annotated[int, typer.Option(help="Tokens of a prompt that is computed whole; 0: none.")] = 512,
    counters: Annotated[
        bool, typer.Option(help="Count bytes from memory by perf or ncu as well, where they work here.")
    ] = True,
    json: Annotated[Optional[Path], typer.Option(help="Write a run file.", dir_okay=False)] = None,  # noqa: UP045
    places: Annotated[bool, typer.Option("--places", help="A row for every operation instead of region.")] = False,
    shown: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", help="Show this run file; measure nothing.", dir_okay=False),
    ] = None,
) -> None:
    """Show where a step's time goes: for each region the floor that this machine allows, the time it took, the bytes it
    moved, and what the difference is made of.

    Predicted is from shapes and measured ceilings (`ridgeline calibrate`; measured now if there are none yet), timed is
    with regions on and held against steps with regions off, operands are counted by PyTorch's dispatcher in steps of
    their own, and what perf or ncu count is counted in a child process. Without --model it takes GPT-2 124M, with
    random weights if it is not cached.

    Example: ridgeline ledger --model demo --batch 1,32 --json ledger.json
    """
    from rich.console import Console

    from ridgeline.bench.options import check_folder
    from ridgeline.lab.ledger.file import read_ledger
    from ridgeline.lab.ledger.showing import by_place, by_region, show

    if shown is not None:
        _only_shows(config.model, batch, json)
        found = read_ledger(shown)
    else:
        from ridgeline.lab.ledger.measuring import LedgerOrder

        check_folder(json)  # before minutes of measuring, not after
        asked = LedgerOrder(numbers("--batch", batch, BATCHES), context, steps, rounds, prefill)
        found = measured(config, asked, json, counters=counters)
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    show(found, by_place if places else by_region, console)
    if json is not None:
        console.print(f"Run file: {json}", markup=False, highlight=False, soft_wrap=True)
    if found.interrupted and shown is None:
        raise SystemExit(EXIT_INTERRUPTED)


def measured(config: Config, asked: LedgerOrder, json: Path | None, *, counters: bool) -> Ledger:
    """Kept after every kind of step, so that neither Ctrl-C nor a failure takes those that were finished."""
    from dataclasses import asdict, replace

    from ridgeline.core.records import provenance
    from ridgeline.lab.ledger.file import Ledger
    from ridgeline.lab.ledger.measuring import each_step
    from ridgeline.lab.machine import ceilings_of
    from ridgeline.lab.rig import Workbench

    about = provenance(sys.argv)
    order = order_of(config)
    with progress_bar() as progress:
        bench = Workbench.open(order, progress)
        ceilings = ceilings_of(bench.loaded.device, cache_dir(), progress)
        found = Ledger(about, order.name, bench.spec, bench.formats, asdict(asked), ceilings, (), interrupted=True)
        try:
            for step in each_step(bench, ceilings, asked, progress):
                found = replace(found, steps=(*found.steps, step))
                _keep(found, json)
            if counters:
                found = replace(found, steps=_counted(found.steps, order, bench, progress))
        except KeyboardInterrupt:
            if not found.steps:
                raise
            return found
    found = replace(found, interrupted=False)
    _keep(found, json)
    return found


def _counted(steps: Sequence[Step], order: EngineOrder, bench: Workbench, progress: Progress) -> tuple[Step, ...]:
    import tempfile

    from ridgeline.lab.counters.counting import Counting, Launch, Plan
    from ridgeline.lab.ledger.counting import counted

    launch = Launch((sys.executable, "-m", "ridgeline", "counted-steps", *model_flags(order.config.model)), keyless())
    on_gpu = bench.loaded.device.torch_device.type == "cuda"
    made = []
    with tempfile.TemporaryDirectory(prefix="ridgeline-") as folder:
        counts = Counting(Plan((), None, "auto"), launch, progress, Path(folder))
        for number, step in enumerate(steps):
            progress(f"counting {step.phase}, batch {step.batch}", number, len(steps))
            made.append(counted(step, counts, on_gpu=on_gpu))
    return tuple(made)


def _only_shows(model: ModelOptions, batch: list[str] | None, json: Path | None) -> None:
    for name, given in (("model", model.model), ("random-weights", model.random_weights), ("batch", batch)):
        if given is not None:
            raise ConfigError(f"--from shows what was measured; --{name} asks for something new: leave one of them out")
    if json is not None:
        raise ConfigError("--from measures nothing, so there is no run file for --json to write; leave one of them out")


def _keep(found: Ledger, json: Path | None) -> None:
    from ridgeline.core.records import write_run
    from ridgeline.lab.ledger.file import to_document

    if json is None:
        return
    try:
        write_run(json, to_document(found))
    except OSError as error:
        raise ConfigError(f"--json {json}: cannot be written ({error.strerror or error})") from error
