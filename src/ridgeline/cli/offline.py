"""The command that measures an engine in this process on a load of requests that are all there at once."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ridgeline.cli.laboratory import kept, order_of, progress_bar
from ridgeline.cli.options import options
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError

if TYPE_CHECKING:
    from ridgeline.build import EngineOrder
    from ridgeline.lab.offline import OfflineOrder


@options("model", "batching", "limits")
def offline(
    config: Config,
    requests: Annotated[int, typer.Option(help="Requests of a round, all at once.")] = 64,
    prompt_len: Annotated[str, typer.Option(help="Prompt tokens: 128, or a range.")] = "32:512",
    output_len: Annotated[str, typer.Option(help="New tokens: 64, or a range.")] = "32:256",
    ignore_eos: Annotated[bool, typer.Option(help="Every answer has its full length.")] = True,
    rounds: Annotated[int, typer.Option(help="Rounds; `ridgeline compare` needs at least 5.")] = 1,
    floor: Annotated[
        bool, typer.Option("--floor", help="Time single steps as well, and say what share of them was reached.")
    ] = False,
    json: Annotated[Optional[Path], typer.Option(help="Write a run file.", dir_okay=False)] = None,  # noqa: UP045
) -> None:
    """Measure tokens/s in, out and in all of an engine in this process: seeded requests, greedy, without text and HTTP.

    --seed gives random weights, lengths and prompts. A few tokens of other requests warm up before. With --floor the
    same engine's decode step is timed alone at the mean batch and context that the load had, and prompts of the mean
    length alone, as many as a step may compute; allowed seconds = decoded tokens / batch x decode step + prompt tokens
    x time of a prompt's token, and the share is allowed seconds / seconds. Mixed steps can bring it above 100 %.

    Example: ridgeline bench offline --random-weights gpt2 --requests 64 --prompt-len 32:512 --output-len 32:256 --floor
    """
    from ridgeline.bench.lengths import Lengths
    from ridgeline.bench.options import check_folder
    from ridgeline.lab.offline import OfflineOrder

    check_folder(json)  # before minutes of measuring, not after
    prompt, new = Lengths.parse("--prompt-len", prompt_len), Lengths.parse("--output-len", output_len)
    order = order_of(config)
    stop_ids = () if ignore_eos else end_tokens(order)
    asked = OfflineOrder(requests, prompt, new, config.model.seed, rounds, stop_ids)
    measured(order, asked, json, floor=floor)


def end_tokens(order: EngineOrder) -> tuple[int, ...]:
    """Raises ConfigError where the model has none."""
    from ridgeline.core.checkpoint import read_generation

    if order.weights is None:
        raise ConfigError("--no-ignore-eos: random weights end nothing; leave it out, or take a --model")
    return read_generation(order.weights).eos_ids


def measured(order: EngineOrder, asked: OfflineOrder, json: Path | None, *, floor: bool) -> None:
    from ridgeline.core.records import provenance
    from ridgeline.lab.benched import told_offline
    from ridgeline.lab.offline import KIND, allowed, described, document, each_load
    from ridgeline.lab.rig import Workbench
    from ridgeline.lab.stepping import settings

    about = provenance(sys.argv)
    with progress_bar() as progress:
        bench = Workbench.open(order, progress)
        config = {**settings(order.config), "asked": asdict(asked), "device_name": bench.loaded.device.name}
        loads = list(each_load(bench, asked, progress))
        found = allowed(bench, loads, progress) if floor else None
    if json is not None:
        results, samples = document(loads, found)
        kept(json, KIND, about, config, results, samples, told_offline)
    print("\n".join(described(loads, found)))
