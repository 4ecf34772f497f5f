"""The command that counts in hardware, and the hidden one that is its child."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ridgeline.cli.environment import keyless
from ridgeline.cli.laboratory import numbers, order_of, progress_bar
from ridgeline.cli.options import model_flags, options
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.options import ModelOptions
from ridgeline.core.records import provenance, write_run

if TYPE_CHECKING:
    from ridgeline.build import EngineOrder
    from ridgeline.lab.counters.counters import Case
    from ridgeline.lab.counters.counting import Plan

PHASES, TOOLS = ("decode", "prefill", "both"), ("auto", "perf", "ncu")
BATCHES, CONTEXT, PREFILL = (1,), 256, 512
MOST_STEPS, MOST_BATCH = 100_000, 4096


@options("model")
def counters(
    config: Config,
    phase: Annotated[Optional[str], typer.Option(metavar="|".join(PHASES), help="Default: both.")] = None,  # noqa: UP045
    batch: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="N[,N...]", help=f"Sequences of a decode step. Default: {BATCHES[0]}."),
    ] = None,
    context: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help=f"Tokens that each of them has. Default: {CONTEXT}, or what the model has room for.", min=2),
    ] = None,
    prefill: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help=f"Tokens of the prompt that a prefill computes. Default: {PREFILL}, or what the model has room for.",
            min=1,
        ),
    ] = None,
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Steps to count. Default: 32, and 2 under ncu, which runs every kernel many times.",
            min=1,
            max=MOST_STEPS,
        ),
    ] = None,
    tool: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="|".join(TOOLS), help="auto: what works here; one that is named must work. Default: auto."
        ),
    ] = None,
    json: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the run file.", dir_okay=False),
    ] = None,
    saved: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", help="Show a run file instead of measuring.", dir_okay=False),
    ] = None,
) -> None:
    """What the hardware counted in steps of a model: traffic of memory and caches, use of the pipes, stalls, energy.

    perf counts on the CPU, Nsight Compute (ncu) on an NVIDIA GPU, NVML and RAPL count energy. Only the steps are
    counted, not the loading. What cannot be counted here says why, and how to allow it. Without --model it takes
    GPT-2 124M.

    Example: ridgeline counters --phase decode --batch 1,8 --json counters.json
    """
    given = {"phase": phase, "batch": batch, "context": context, "prefill": prefill, "steps": steps, "tool": tool}
    if saved is not None:
        _show_saved(saved, config, [name for name, value in (given | {"json": json}).items() if value is not None])
        return
    from ridgeline.lab.counters.counters import check_room
    from ridgeline.lab.counters.counting import STEPS, Plan

    begun, used = provenance(sys.argv), _one_of("--tool", tool or "auto", TOOLS)
    _one_of("--phase", phase or "both", PHASES)
    order = order_of(config)
    positions = order.spec().max_positions
    # What was not asked for suits the model.
    context, prefill = context or min(CONTEXT, positions // 2), prefill or min(PREFILL, positions - 2)
    cases = _cases(phase or "both", numbers("--batch", batch, BATCHES, MOST_BATCH), context, prefill)
    for case in cases:
        check_room(case, steps or STEPS, positions)
    raise SystemExit(_measure(order, Plan(cases, steps, used), begun, json))


def _measure(order: EngineOrder, plan: Plan, begun: dict[str, Any], json: Path | None) -> int:
    from rich.console import Console

    from ridgeline.lab.counters.counters import FORMAT, KIND
    from ridgeline.lab.counters.counting import Launch, count
    from ridgeline.lab.counters.view import show

    model = order.config.model
    child = (sys.executable, "-m", "ridgeline", "counted-steps", *model_flags(model))
    with progress_bar() as progress:
        results, interrupted = count(plan, Launch(child, keyless()), progress)
    asked: dict[str, Any] = {"model": order.name, "options": asdict(model), "tool": plan.tool, "steps": plan.steps}
    document = {"format": FORMAT, "kind": KIND, "provenance": begun, "config": asked, "interrupted": interrupted}
    document["results"] = results
    show(document, Console())
    if json is not None:
        try:
            write_run(json, document)
        except OSError as error:
            raise ConfigError(f"--json {json}: cannot be written ({error.strerror or error})") from error
    return 130 if interrupted else 0


def _show_saved(saved: Path, config: Config, given: list[str]) -> None:
    from rich.console import Console

    from ridgeline.lab.counters.counters import read_run
    from ridgeline.lab.counters.view import show

    if given or config.model != ModelOptions():
        what = f"--{given[0]}" if given else "a model option"
        raise ConfigError(f"--from shows what was measured, so {what} does nothing beside it; leave one of them out")
    show(read_run(saved), Console())


def _cases(phase: str, batches: tuple[int, ...], context: int, prefill: int) -> tuple[Case, ...]:
    from ridgeline.lab.counters.counters import Case

    decode = tuple(Case("decode", number, context) for number in batches)
    whole = (Case("prefill", 1, prefill),)
    return {"decode": decode, "prefill": whole, "both": decode + whole}[phase]


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ConfigError(f"{option}: '{value}' is not one of {', '.join(choices)}")
    return value


@options("model")
def counted_steps(
    config: Config,
    phase: Annotated[str, typer.Option()],
    batch: Annotated[int, typer.Option()],
    context: Annotated[int, typer.Option()],
    steps: Annotated[int, typer.Option()],
    watch: Annotated[str, typer.Option()],
    report: Annotated[Path, typer.Option()],
    control: Annotated[Optional[str], typer.Option()] = None,  # noqa: UP045
) -> None:
    """The child of `counters`: runs steps and lets a profiler look at exactly them."""
    from ridgeline.lab.counters.counted import run
    from ridgeline.lab.counters.counters import Case
    from ridgeline.lab.counters.perf import Control

    ends = None if control is None else Control(*(int(fd) for fd in control.split(",")))
    run(
        order_of(config),
        Case(phase, batch, context),
        steps,
        _one_of("--watch", watch, ("none", "perf", "ncu")),
        ends,
        report,
    )
