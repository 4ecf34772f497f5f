"""Timeline: each request as a row over the server's time. Knows timings and characters; knows no HTTP."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.text import Text

from ridgeline.bench.records import Outcome, ServerTimings, whole_batches

MIN_BAR = 20
TICK_COLUMNS = 12
# Differences of a clock's seconds as floating-point numbers are not exact.
ROUNDING_MS = 1e-3


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a request's life and the words of the legend. compute: the device worked for it."""

    name: str
    meaning: str
    compute: bool = False


WINDOW = Phase("window", "waiting for the window")
QUEUED = Phase("queued", "queued")
PREFILL = Phase("prefill", "prefill", compute=True)
DECODE = Phase("decode", "decode", compute=True)
DONE = Phase("done", "done")
EMPTY = Phase("empty", "its row runs empty until the batch ends")


@dataclass(frozen=True, slots=True)
class Segment:
    """[start_ms, end_ms) since the picture's left edge."""

    phase: Phase
    start_ms: float
    end_ms: float

    @property
    def length_ms(self) -> float:
        return self.end_ms - self.start_ms


@dataclass(frozen=True, slots=True)
class Glyphs:
    """How each phase is drawn: a character that can be told apart without colour, and a style."""

    marks: dict[str, tuple[str, str]]

    def draw(self, phase: Phase, length: int = 1) -> Text:
        mark, style = self.marks[phase.name]
        return Text(mark * length, style)


PLAIN = Glyphs(
    {
        "window": (".", ""),
        "queued": ("-", ""),
        "prefill": ("#", ""),
        "decode": ("=", ""),
        "done": ("|", ""),
        "empty": ("o", ""),
    }
)
COLOURED = Glyphs(
    {
        "window": ("░", "yellow"),
        "queued": ("▒", "magenta"),
        "prefill": ("▓", "cyan"),
        "decode": ("█", "green"),
        "done": ("▏", "bold"),
        "empty": ("·", "red"),
    }
)


def glyphs_for(console: Console) -> Glyphs:
    """Colours and blocks where the terminal has both, plain characters otherwise."""
    coloured = console.color_system is not None and not console.no_color and not console.options.ascii_only
    return COLOURED if coloured else PLAIN


def segments(timings: ServerTimings, origin_s: float, batch_end_s: float | None) -> list[Segment]:
    """The request's life in order.

    Held by the window means that the device was free, which is the last part of the wait: it ends when the batch
    closes. batch_end_s: when the last member of its batch ended, None without a batch.
    """
    arrival_ms = (timings.arrival_s - origin_s) * 1e3
    admitted_ms = arrival_ms + timings.window_ms + timings.queued_ms
    held_until_ms = admitted_ms
    if timings.batch is not None:
        closed_ms = (timings.batch.closed_s - origin_s) * 1e3
        held_until_ms = min(max(closed_ms, arrival_ms + timings.window_ms), admitted_ms)
    held_ms = held_until_ms - timings.window_ms
    first_ms = admitted_ms + timings.prefill_ms
    finished_ms = first_ms + timings.decode_ms
    ended_ms = finished_ms if batch_end_s is None else max(finished_ms, (batch_end_s - origin_s) * 1e3)
    life = (
        Segment(QUEUED, arrival_ms, held_ms),
        Segment(WINDOW, held_ms, held_until_ms),
        Segment(QUEUED, held_until_ms, admitted_ms),
        Segment(PREFILL, admitted_ms, first_ms),
        Segment(DECODE, first_ms, finished_ms),
        Segment(EMPTY, finished_ms, ended_ms),
    )
    return [s for s in life if s.length_ms > ROUNDING_MS]


def cells(life: Sequence[Segment], ms_per_cell: float, width: int) -> list[Phase | None]:
    """One phase a column: the one that fills most of it. The done mark stands in the first column behind decode.

    Prefill and decode never vanish: one that is most of no column gets the column of its middle.
    """
    shares: list[dict[Phase, float]] = [{} for _ in range(width)]
    for segment in life:
        last = min(width - 1, math.ceil(segment.end_ms / ms_per_cell) - 1)
        for i in range(max(0, int(segment.start_ms / ms_per_cell)), last + 1):
            share = min(segment.end_ms, (i + 1) * ms_per_cell) - max(segment.start_ms, i * ms_per_cell)
            shares[i][segment.phase] = shares[i].get(segment.phase, 0.0) + share
    row = [_fullest(column, ms_per_cell) for column in shares]
    for segment in life:
        if segment.phase.compute and segment.phase not in row:
            middle_ms = (segment.start_ms + segment.end_ms) / 2
            place = min(width - 1, int(middle_ms / ms_per_cell))
            taken = row[place]
            if taken is not None and taken.compute and row.count(taken) == 1:
                place = min(width - 1, place + 1)  # prefill and decode together in one column: side by side
            row[place] = segment.phase
    computing = [i for i, phase in enumerate(row) if phase is not None and phase.compute]
    if computing:
        row[min(width - 1, computing[-1] + 1)] = DONE
    return row


def _fullest(column: dict[Phase, float], ms_per_cell: float) -> Phase | None:
    """The phase with most of a column; None where nothing fills half of it together."""
    if sum(column.values()) < ms_per_cell / 2:
        return None
    return max(column, key=lambda phase: column[phase])


def batch_ends(timings: Iterable[ServerTimings]) -> dict[int, float]:
    """Batch serial to the second in which its last known member ended."""
    ends: dict[int, float] = {}
    for t in timings:
        if t.batch is not None:
            ends[t.batch.serial] = max(t.finished_s, ends.get(t.batch.serial, -math.inf))
    return ends


def tick_ms(span_ms: float, columns: int) -> float:
    """The distance of the axis's numbers: 1, 2 or 5 times a power of ten, with room for each number."""
    least = span_ms * TICK_COLUMNS / columns
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least)


def _axis(ms_per_cell: float, width: int) -> str:
    step = tick_ms(ms_per_cell * width, width)
    line = ""
    for i in range(math.floor(width * ms_per_cell / step) + 1):
        line = line.ljust(round(i * step / ms_per_cell)) + f"|{i * step:g}"
    return line[:width].ljust(width)


def draw(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Prints the picture of all outcomes that carry timings; failed requests get a row that says why.

    Expects at least one outcome with timings.
    """
    known = [o.timings for o in outcomes if o.timings]
    order = {batch.serial: i + 1 for i, batch in enumerate(whole_batches(known))}
    ends = batch_ends(known)
    origin_s = min(t.arrival_s for t in known)
    span_ms = max((t.finished_s - origin_s) * 1e3 for t in known)
    glyphs = glyphs_for(console)
    head, tail = f"{'#':>3} {'batch':>5} {'tokens':>9} ", f" {'total':>7}"
    width = max(MIN_BAR, console.width - len(head) - len(tail) - 3)
    ms_per_cell = max(span_ms, 1e-3) / (width - 1)  # the last column is for the done mark
    _print(console, Text(head + _axis(ms_per_cell, width) + tail + " ms"))
    for outcome in outcomes:
        _print(console, _row(outcome, order, ends, origin_s, ms_per_cell, width, glyphs))
    console.print()
    console.print(Text("    ").join(_legend(glyphs, phase) for phase in (WINDOW, QUEUED, PREFILL, DECODE, DONE)))
    if ends:
        console.print(_legend(glyphs, EMPTY))
    console.print(f"one column is {ms_per_cell:.3g} ms", highlight=False)


def _legend(glyphs: Glyphs, phase: Phase) -> Text:
    return glyphs.draw(phase) + Text(f" {phase.meaning}")


def _row(
    outcome: Outcome,
    order: dict[int, int],
    ends: dict[int, float],
    origin_s: float,
    ms_per_cell: float,
    width: int,
    glyphs: Glyphs,
) -> Text:
    label = f"{outcome.number:>3} "
    if outcome.reply is None or outcome.timings is None:
        return Text(f"{label}{'-':>5} {'-':>9} failed: {outcome.error or 'no timings'}")
    timings = outcome.timings
    serial = timings.batch.serial if timings.batch else None
    batch = "-" if serial is None else str(order[serial])
    row = Text(f"{label}{batch:>5} {f'{outcome.reply.prompt_tokens}+{outcome.reply.tokens}':>9} ")
    life = segments(timings, origin_s, None if serial is None else ends[serial])
    for phase, run in groupby(cells(life, ms_per_cell, width)):
        length = len(list(run))
        row.append_text(Text(" " * length) if phase is None else glyphs.draw(phase, length))
    return row.append(f" {timings.total_ms:>7.0f} ms")


def _print(console: Console, line: Text) -> None:
    """One line of the screen, cut where it is longer."""
    console.print(line, no_wrap=True, overflow="crop", crop=True)
