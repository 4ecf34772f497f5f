"""The command that saves a model in fewer bits."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ridgeline.cli.environment import cache_dir, hub_access
from ridgeline.cli.laboratory import progress_bar
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.quantisation import SAVED

if TYPE_CHECKING:
    from ridgeline.build import EngineOrder

MB = 10**6


def quantize(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write it: a folder that is not there yet.")],
    scheme: Annotated[
        str, typer.Option("--quantize", metavar="|".join(SAVED), help="int8: 8 bits a weight. int4: 4.25.")
    ] = "int4",
    model: Annotated[
        Optional[str],  # noqa: UP045  (typer reads it at run time)
        typer.Option(help="demo, a directory, or a name on the hub. Default: gpt2 if it can be had, otherwise demo."),
    ] = None,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="How many threads round weights. Default: one for each core."),
    ] = None,
) -> None:
    """Save a model with weights of 8 or 4 bits, so that it is smaller on disk and a start rounds nothing.

    The folder gives the same tokens as --quantize with the original. Its file holds codes and scales, which are put
    into the order of the processor at hand when they are loaded, so it is good for every CPU. `serve`, `generate` and
    the others take it as --model and need not be told how its weights are held. Biases, norms and tables that are only
    looked up stay as they are. A GPU holds integers otherwise: there, give --quantize and the original.

    int8 loses next to nothing; int4 is half as large and loses some quality (docs/quantisation.md has figures).

    Example: ridgeline quantize --model gpt2 --quantize int4 --out gpt2-int4 && ridgeline serve --model gpt2-int4
    """
    if scheme not in SAVED:
        raise ConfigError(f"--quantize {scheme}: take one of {', '.join(SAVED)}")
    if out.exists():
        raise ConfigError(f"--out {out}: is there already; name a folder that is not")
    config = Config.from_mapping({"model": model, "quantize": scheme, "threads": threads, "device": "cpu"})

    from ridgeline.build import make_scheme
    from ridgeline.device.choose import choose
    from ridgeline.models.quantised import Integers
    from ridgeline.models.saving import save

    order = _ordered(config)
    device, begun = choose("cpu", "float32", threads), time.perf_counter()
    with progress_bar() as progress:
        made, notes = make_scheme(order, device, progress)
        assert order.weights is not None
        assert isinstance(made, Integers)
        in_mb: Callable[[int, int], None] = lambda done, total: progress("MB rounded", done // MB, total // MB)  # noqa: E731
        num_bytes = save(order.spec(), order.weights, out, made, device, in_mb)
    for note in notes:
        print(note, file=sys.stderr)
    print(f"{out}: {order.name} as {scheme}, {num_bytes / MB:.1f} MB, in {time.perf_counter() - begun:.1f} s")
    print(f"Serve it: ridgeline serve --model {shlex.quote(str(out))}")


def _ordered(config: Config) -> EngineOrder:
    """Of a model whose weights are plain numbers. Raises ModelError."""
    from ridgeline.build import EngineOrder
    from ridgeline.hub import choose
    from ridgeline.terminal import Terminal

    terminal = Terminal()
    try:
        found = choose(config.model, hub_access(), terminal.progress)
    finally:
        terminal.done()
    if found.note is not None:
        terminal.say(found.note)
    order = EngineOrder(config, found.name, found.weights, cache=cache_dir())
    if order.saved is not None:
        raise ConfigError(f"{order.name} is saved as {order.saved} already; name the model that it was made from")
    return order
