"""The command that profiles steps of the engine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ridgeline.cli.laboratory import order_of, progress_bar
from ridgeline.cli.options import options
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.options import ModelOptions


class Phase(StrEnum):
    decode = "decode"
    prefill = "prefill"
    both = "both"


class UseNsys(StrEnum):
    auto = "auto"
    on = "on"
    off = "off"


@options("model")
def profile(
    config: Config,
    phase: Annotated[Phase, typer.Option(help="Which steps, one kind after the other.")] = Phase.both,
    batch: Annotated[int, typer.Option(help="Decode: sequences.", min=1, max=4096)] = 8,
    context: Annotated[int, typer.Option(help="Decode: tokens of each sequence so far.", min=1)] = 256,
    steps: Annotated[int, typer.Option(help="Decode: steps.", min=1, max=2000)] = 20,
    prefill: Annotated[int, typer.Option(help="Prefill: tokens of the prompt; it is computed 3 times.", min=1)] = 256,
    shapes: Annotated[bool, typer.Option("--shapes", help="Record the shapes of every operation's operands.")] = False,
    output: Annotated[Path, typer.Option(help="A folder for the trace and the run file.", file_okay=False)] = Path(
        "profile"
    ),
    nsys: Annotated[
        UseNsys, typer.Option(help="A timeline with NVIDIA's nsys too. auto: if it is on the PATH.")
    ] = UseNsys.auto,
    ranges_only: Annotated[
        bool,
        typer.Option(
            "--ranges-only",
            help="Run the steps with NVTX ranges and write nothing: what nsys, ncu or perf are given to start.",
        ),
    ] = False,
) -> None:
    """Trace steps of the engine with PyTorch's profiler: a Chrome/Perfetto trace, and a table of the model's places.

    Without --model it takes GPT-2 124M, with random weights where it is not cached. docs/profiling.md says how to read
    the trace, and how to profile a server.

    Example: ridgeline profile --model demo --phase decode --batch 8
    """
    from rich.console import Console

    from ridgeline.lab.profiling import NSYS_HINT, Ask, Nsys, run, run_bare

    found = None if nsys is UseNsys.off or ranges_only else shutil.which("nsys")
    if nsys is UseNsys.on and ranges_only:
        raise ConfigError("--ranges-only is what nsys starts; leave --nsys out")
    if nsys is UseNsys.on and found is None:
        raise ConfigError(NSYS_HINT)
    order = order_of(config)
    ask = Ask(phase.value, batch, context, steps, prefill, shapes)
    if ranges_only:
        with progress_bar() as progress:
            raise SystemExit(run_bare(order, ask, progress))
    same = {"phase": phase.value, "batch": batch, "context": context, "steps": steps, "prefill": prefill}
    again = [sys.executable, "-m", "ridgeline", "profile", *_flags(order.config.model, same), "--ranges-only"]
    under = None if found is None else Nsys(found, output, tuple(again), must=nsys is UseNsys.on)
    raise SystemExit(run(order, ask, output, sys.argv, under, Console(), progress_bar))


def _flags(model: ModelOptions, more: Mapping[str, object]) -> list[str]:
    given: dict[str, object] = {
        f.name: value for f in fields(model) if (value := getattr(model, f.name)) != f.default
    } | {**more}
    return [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), str(value))]
