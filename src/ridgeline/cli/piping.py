"""The command that draws what the flight recorder kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ridgeline.core.errors import ConfigError

if TYPE_CHECKING:
    from ridgeline.core.flight import Recording


def pipeline(
    recording: Annotated[Path, typer.Argument(help="A recording: of GET /v1/recording, or a crash report.")],
    request: Annotated[str | None, typer.Option(help="Only this request: its id, its beginning, or its key.")] = None,
    steps: Annotated[
        str | None,
        typer.Option(help="A:B, positions in the recording as in a Python slice; --steps=-50: is the last fifty."),
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw into this file instead.", dir_okay=False)] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write the server's page into this file, to replay it without a server.", dir_okay=False),
    ] = None,
) -> None:
    """Draw a recording as processors' pipelines are drawn: a row a request, a column a step.

    Shows who was in each step and what for, who waited and who was seated without a part in it, with the reason below;
    then tokens a step, bubbles of padding, and stalls counted. Without --steps: the newest that fit the terminal,
    the newest 200 in an SVG, or all in a page.

    Example: ridgeline pipeline crash.json --steps=-100: --svg crash.svg
    """
    from rich.console import Console

    from ridgeline.core.flightfile import read_recording
    from ridgeline.core.plaintext import harmless
    from ridgeline.lab.pipeline import svg as drawing
    from ridgeline.lab.pipeline import terminal
    from ridgeline.lab.pipeline.cells import Pipeline

    console, found = Console(), read_recording(recording)
    if html is not None:
        _save(found, recording.name, html, steps, {"--request": request, "--svg": svg})
        return
    room = terminal.columns(console) if svg is None else drawing.STEPS
    first, end = _slice(steps, len(found.steps), room)
    drawn = Pipeline.of(found.between(first, end), request)
    if svg is not None:
        _write(svg, drawing.draw(drawn))
        print(f"{len(drawn.recording.steps)} steps of {len(drawn.keys)} requests are in {svg}")
        return
    if found.message is not None:
        print(f"the engine died: {harmless(found.message).strip()}\n")
    left = first, len(found.steps) - first - len(drawn.recording.steps)
    terminal.show(console, drawn, room)
    if any(left):
        print(f"{left[0]} steps before these and {left[1]} after them are in the recording: --steps A:B")


def _save(found: Recording, name: str, html: Path, steps: str | None, others: dict[str, object]) -> None:
    """others: options that a page has no use for. Raises ConfigError."""
    from ridgeline.core.saved import saved_page

    for option, value in others.items():
        if value is not None:
            raise ConfigError(f"{option}: not with --html; the page shows every request, and draws by itself")
    shown = found.between(*_slice(steps, len(found.steps), len(found.steps)))
    _write(html, saved_page(shown.encoded().decode("utf-8"), f"Ridgeline: {name}"))
    print(f"{len(shown.steps)} steps of {len(shown.keys())} requests are in {html}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror or error})") from error


def _slice(asked: str | None, count: int, room: int) -> tuple[int, int]:
    """Raises ConfigError."""
    if asked is None:
        return max(0, count - room), count
    match = re.fullmatch(r"(-?\d{1,9})?:(-?\d{1,9})?", asked)
    if match is None:
        raise ConfigError(f"--steps {asked:.40}: write A:B, for example 100:180, or --steps=-50: for the last fifty")
    first, end, _ = slice(*(int(part) if part else None for part in match.groups())).indices(count)
    if first >= end:
        raise ConfigError(f"--steps {asked}: no steps are there; the recording has {count}")
    return first, end
