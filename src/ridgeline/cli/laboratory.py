"""What the laboratory's commands share: which model they measure, and a bar while they do. Knows no command."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridgeline.cli.environment import cache_dir, hub_access
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.records import write_run
from ridgeline.core.report import reported

if TYPE_CHECKING:
    from ridgeline.build import EngineOrder
    from ridgeline.core.report import Report
    from ridgeline.lab.machine import Progress

MEASURED = "gpt2"
RUN_FORMAT = 1


def order_of(config: Config) -> EngineOrder:
    """The model that the options name; GPT-2 124M if none is named: from the cache, or of random weights, which cost
    what real ones cost. Nothing is downloaded for a measurement. Raises ModelError."""
    from ridgeline.build import EngineOrder
    from ridgeline.hub import choose
    from ridgeline.hub.access import HubError
    from ridgeline.terminal import Terminal

    terminal = Terminal()
    options, access = config.model, hub_access()
    if options.model is None and options.random_weights is None:
        named = dataclasses.replace(options, model=MEASURED)
        try:
            found = choose(named, dataclasses.replace(access, offline=True))
        except HubError:
            named = dataclasses.replace(options, random_weights=MEASURED)
            found = choose(named, access)
        options = named
    else:
        found = choose(options, access, terminal.progress)
        terminal.done()
    if found.note is not None:
        terminal.say(found.note)
    return EngineOrder(dataclasses.replace(config, model=options), found.name, found.weights, cache=cache_dir())


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr that is gone at the end; `progress(what goes on, done, of how many)`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True, refresh_per_second=2) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, whole: bar.update(task, description=what, completed=done, total=whole or None)


def written(path: Path, kind: str, provenance: Mapping[str, Any], config: Mapping[str, Any], results: Any) -> None:
    """A run file, for --json; says where it lies. Raises ConfigError."""
    kept(path, kind, provenance, config, results)
    print(f"Run file: {path}")


def kept(
    path: Path,
    kind: str,
    provenance: Mapping[str, Any],
    config: Mapping[str, Any],
    results: Any,
    samples: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    told: Callable[[Mapping[str, Any]], Report] | None = None,
) -> None:
    """A run file, for --json. samples: {name: {quantity: a value for each repeat}}. told: what it says. Raises
    ConfigError."""
    run: dict[str, Any] = {
        "format": RUN_FORMAT, "kind": kind, "provenance": dict(provenance), "config": dict(config), "results": results,
    }  # fmt: skip
    run |= {} if samples is None else {"samples": samples}
    try:
        write_run(path, run if told is None else reported(run, told(run)))
    except OSError as error:
        raise ConfigError(f"--json {path}: it cannot be written ({error.strerror or error})") from error


def numbers(option: str, given: Sequence[str] | None, otherwise: tuple[int, ...], most: int = 4096) -> tuple[int, ...]:
    """Of an option that takes 1,8,32 and may be given again; in the order given, each once. Raises ConfigError."""
    if not given:
        return otherwise
    parts = [part.strip() for text in given for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and 1 <= int(part) <= most for part in parts):
        raise ConfigError(f"{option} {','.join(given)}: write whole numbers from 1 to {most}, for example 1,8,32")
    return tuple(dict.fromkeys(map(int, parts)))
