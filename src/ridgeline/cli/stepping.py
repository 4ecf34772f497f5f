"""The command that times whole steps of an engine in this process."""

from __future__ import annotations

import json as jsonlib
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from ridgeline.cli.laboratory import kept, numbers, order_of, progress_bar
from ridgeline.cli.options import options
from ridgeline.core.config import Config

if TYPE_CHECKING:
    from ridgeline.build import EngineOrder
    from ridgeline.lab.stepping import StepOrder

BATCHES, CONTEXTS = (1, 8, 32), (256,)
_NUMBERS = re.compile(r"[\d,]+")


class NumberLists(TyperCommand):
    """A command whose `--batch` and `--context` take `1 8 32` as well as `1,8,32`: the benches of others do."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, joined(args))


def joined(args: Sequence[str], flags: Sequence[str] = ("--batch", "--context")) -> list[str]:
    """Numbers that follow one of these flags become one argument, with commas between them."""
    made: list[str] = []
    flag = ""
    for word in args:
        is_number = _NUMBERS.fullmatch(word) is not None
        if is_number and flag and made[-1] != flag:
            made[-1] += f",{word}"
            continue
        if not is_number:
            flag = word if word in flags else ""
        made.append(word)
    return made


@options("model", "batching", "limits")
def step(
    config: Config,
    batch: Annotated[
        Optional[list[str]],  # noqa: UP045  (typer reads it at run time)
        typer.Option(metavar="N[,N...]", help="Sequences in a decode step. Default: 1,8,32."),
    ] = None,
    context: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="N[,N...]", help="Tokens that each of them has before the first step. Default: 256."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Decode steps of a round.")] = 48,
    prefill: Annotated[int, typer.Option(help="Tokens of a prompt that is computed whole; 0: none.")] = 512,
    rounds: Annotated[int, typer.Option(help="Rounds; `ridgeline compare` needs at least 5.")] = 5,
    json: Annotated[Optional[Path], typer.Option(help="Write a run file.", dir_okay=False)] = None,  # noqa: UP045
) -> None:
    """Time whole steps of an engine in this process, without HTTP: decode at every batch and context, then a prompt.

    A step is all that the engine does for it: scheduling, upload, model, head, sampling and download, by the host's
    clock. Prints a JSON line for each kind of step: tokens/s at the median step of the median round. The run file has
    every step, and on a GPU as many more that the GPU's own timer measured. Without --model it takes GPT-2 124M, with
    random weights if it is not cached.

    Example: ridgeline bench step --random-weights gpt2 --threads 2 --batch 1 8 32 --context 256 --json step.json
    """
    from ridgeline.bench.options import check_folder
    from ridgeline.lab.stepping import StepOrder, check_free

    check_folder(json)  # before minutes of measuring, not after
    check_free(config)
    asked = StepOrder(
        numbers("--batch", batch, BATCHES),
        numbers("--context", context, CONTEXTS, most=1 << 20),
        steps,
        rounds,
        prefill,
    )
    measured(order_of(config), asked, json)


def measured(order: EngineOrder, asked: StepOrder, json: Path | None) -> None:
    """Printed and kept after every kind of step, so that neither Ctrl-C nor a failure takes what was finished."""
    from ridgeline.core.records import provenance
    from ridgeline.lab.benched import told_step
    from ridgeline.lab.rig import Workbench
    from ridgeline.lab.stepping import KIND, each_timing, settings

    about = provenance(sys.argv)
    found: list[dict[str, Any]] = []
    samples: dict[str, Any] = {}
    with progress_bar() as progress:
        bench = Workbench.open(order, progress)
        device = bench.loaded.device
        config = {**settings(order.config), "asked": asdict(asked), "device_name": device.name}
        for timing in each_timing(bench, asked, progress):
            line = timing.line(order.name, device.threads)
            print(jsonlib.dumps(line), flush=True)
            found.append(line | {"host_ns": timing.host_ns, "device_ns": timing.device_ns})
            samples[timing.name] = timing.samples()
            if json is not None:
                kept(json, KIND, about, config, found, samples, told_step)
