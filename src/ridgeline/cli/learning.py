"""The command of the course: a question, a guess, and what this machine says."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ridgeline.cli.laboratory import order_of, progress_bar, written
from ridgeline.cli.options import options
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ridgeline.lab.learn.chapter import Chapter, Figures, Found


@options("model")
def learn(
    config: Config,
    chapter: Annotated[
        Optional[int],  # noqa: UP045  (typer reads it at run time)
        typer.Argument(help="Which chapter; left out: list them.", show_default=False),
    ] = None,
    guess: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Your answer to the chapter's question. Left out: asked for, if somebody can be asked."),
    ] = None,
    json: Annotated[Optional[Path], typer.Option(help="Write a run file.", dir_okay=False)] = None,  # noqa: UP045
) -> None:
    """A course in eight experiments: guess what this machine will say, then let it say so.

    Each takes some seconds. The texts are in docs/learn; without a chapter the list is printed. Without --model it
    takes GPT-2 124M, with random weights if it is not cached; `--model demo` is quicker.

    Example: ridgeline learn 1 --model demo --guess 8
    """
    from rich.console import Console

    from ridgeline.lab.learn.course import CHAPTERS
    from ridgeline.lab.learn.course import chapter as found_chapter

    console = Console()
    if chapter is None:
        if guess is not None or json is not None:
            raise ConfigError("which chapter? for example: ridgeline learn 1 --guess 8")
        for one in CHAPTERS:
            console.print(f"{one.number}  {one.title}", highlight=False)
            console.print(f"   {one.question}", style="dim", highlight=False)
        console.print("\nBegin with: ridgeline learn 1 --model demo", highlight=False)
        return
    _answered(config, found_chapter(chapter), guess, json, console)


def _answered(config: Config, chapter: Chapter, guess: float | None, json: Path | None, console: Console) -> None:
    from ridgeline.bench.options import check_folder
    from ridgeline.cli.environment import cache_dir
    from ridgeline.core.records import provenance
    from ridgeline.lab.learn.chapter import Place, judged
    from ridgeline.lab.rig import Workbench

    check_folder(json)
    about = provenance(sys.argv)
    console.print(f"{chapter.number}. {chapter.title}", style="bold", highlight=False)
    console.print(chapter.question, highlight=False)
    console.print(f"To reckon it: {chapter.hint}", style="dim", highlight=False)
    if guess is None and sys.stdin.isatty():
        guess = typer.prompt("Your guess", type=float)
    if guess is not None:
        judged(guess, 1.0, chapter.unit)  # a guess that is none is refused before the measurement
    order = order_of(config)
    with progress_bar() as progress:
        bench = Workbench.open(order, progress)
        found = chapter.experiment(Place(bench, cache_dir(), progress))
    shown(found, console)
    if guess is not None:
        console.print(judged(guess, found.answer, chapter.unit), style="bold", highlight=False)
    if json is not None:
        results = {
            "chapter": chapter.number,
            "question": chapter.question,
            "answer": found.answer,
            "unit": chapter.unit.strip(),
            "figures": asdict(found.figures),
            "told": found.told,
            "beside": None if found.beside is None else asdict(found.beside),
        }
        about_model = {"model": order.name, "device_name": bench.loaded.device.name}
        written(json, "learn", about, about_model, results)


def shown(found: Found, console: Console) -> None:
    console.print()
    console.print(_table(found.figures), highlight=False)
    for sentence in found.told:
        console.print(sentence, highlight=False)
    if found.beside is not None:
        console.print()
        console.print(_table(found.beside), highlight=False)


def _table(figures: Figures) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, column in enumerate(figures.columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in figures.rows:
        table.add_row(*row)
    return table
