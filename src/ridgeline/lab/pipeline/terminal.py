"""The pipeline diagram on a terminal, in colour or in plain characters. Knows cells; knows no recording's format."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.text import Text

from ridgeline.lab.pipeline.cells import KINDS, Pipeline, Summary

MOST_REQUESTS = 200
_LABEL = 20
_TICK = 10
Marks = dict[str, tuple[str, str]]
PLAIN: Marks = {
    "none": (" ", ""),
    "prefill": ("#", ""),
    "decode": ("=", ""),
    "recomputed": ("%", ""),
    "queued": (".", ""),
    "stalled": ("!", ""),
    "preempted": ("x", ""),
    "retired": ("|", ""),
}
COLOURED: Marks = {
    "none": (" ", ""),
    "prefill": ("▓", "cyan"),
    "decode": ("█", "green"),
    "recomputed": ("▓", "magenta"),
    "queued": ("░", "yellow"),
    "stalled": ("▒", "red"),
    "preempted": ("x", "bold red"),
    "retired": ("▌", "bold green"),
}
_STALL_MARKS = {"": " ", "window": "w", "slots": "s", "blocks": "b", "budget": "t", "order": "o"}
"""t: tokens of the budget."""


def columns(console: Console) -> int:
    """Steps that a line has room for."""
    return max(_TICK, console.width - _LABEL - 1)


def show(console: Console, pipeline: Pipeline, room: int) -> None:
    """room: steps of a line; more are continued below, as a score of music is."""
    coloured = console.color_system is not None and not console.no_color and not console.options.ascii_only
    marks = COLOURED if coloured else PLAIN
    for first in range(0, pipeline.cells.shape[1], room):
        _stave(console, pipeline, slice(first, first + room), marks)
        console.print()
    if len(pipeline.keys) > MOST_REQUESTS:
        _print(console, Text(f"{len(pipeline.keys) - MOST_REQUESTS} more requests are not drawn: --request, --steps"))
    legend = [Text(marks[kind.name][0], marks[kind.name][1]).append(f" {kind.meaning}", "none") for kind in KINDS[1:]]
    console.print(Text("   ").join(legend), highlight=False)
    causes = "   ".join(f"{mark} {name}" for name, mark in _STALL_MARKS.items() if name)
    console.print(f"kept out for want of: {causes}", highlight=False)
    for line in Summary.of(pipeline).lines():
        console.print(line, highlight=False)


def _stave(console: Console, pipeline: Pipeline, which: slice, marks: Marks) -> None:
    recording = pipeline.recording
    _print(console, Text("step".ljust(_LABEL)).append(_axis(recording.steps.serial[which].tolist())))
    rows = pipeline.cells[:MOST_REQUESTS, which]
    for key, row in zip(pipeline.keys, rows.tolist(), strict=False):
        if not any(row) and len(pipeline.keys) > 1:
            continue
        line = Text(_short(pipeline.name(key)).ljust(_LABEL))
        for kind, run in groupby(row):
            mark, style = marks[KINDS[kind].name]
            line.append(mark * len(list(run)), style)
        _print(console, line)
    _print(console, Text("kept out".ljust(_LABEL) + "".join(_STALL_MARKS[name] for name in recording.stalls()[which])))


def _axis(serials: list[int]) -> str:
    """A serial at every tenth column."""
    line = ""
    for i in range(0, len(serials), _TICK):
        line = line.ljust(i) + f"|{serials[i]}"
    return line[: len(serials)]


def _short(name: str) -> str:
    """The end of an id tells more than its beginning."""
    return name if len(name) < _LABEL else "~" + name[-_LABEL + 2 :]


def _print(console: Console, line: Text) -> None:
    console.print(line, no_wrap=True, overflow="crop", crop=True)
