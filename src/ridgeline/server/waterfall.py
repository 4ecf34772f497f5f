"""Waterfall: what one generation was doing when, from the engine's recording. Knows steps, rows and lives; no HTTP.

It says what the wall ledger says, by the same rules: a step begins, for a row, when the step before it was committed,
or when the row was last heard of if that is later; between its steps a seated request waits for others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridgeline.core.flight import ADMITTED, ARRIVED, ENDED, PHASES, PREEMPTED, Recording
from ridgeline.core.types import Timings
from ridgeline.server.ledger import Ledger
from ridgeline.server.requests import Record, Run

Json = dict[str, Any]

_AFTER = ("delivered", "detokenised", "socket")


@dataclass(frozen=True, slots=True)
class Span:
    """name: a part of the wall ledger."""

    name: str
    start_ns: int
    end_ns: int


def told(record: Record, run: Run, recording: Recording | None, running: Mapping[int, Timings]) -> Json:
    """A generation's ledger and waterfall. running: by key, how far the engine says those are that run."""
    course, spans, where = run.course, list[Span](), "recording"
    timings = course.end.timings if course.end else running.get(course.key)
    if timings is not None and recording is not None:
        spans = drawn(recording, course.key, timings)
    if timings is not None and not spans:
        spans, where = from_stamps(timings), "stamps"
    account = record.ledger(course, timings)
    return run.json(account, timings, _spans(record, account, spans), where)


def _spans(record: Record, account: Ledger, engine: Sequence[Span]) -> list[Json]:
    """The front's parts around the engine's. Those that follow may have been in turns; they stand one after another."""
    parts, at_ns = account.parts_ns, record.arrived_ns
    spans: list[Span] = []
    for name in ("received", "tokenised"):
        spans.append(Span(name, at_ns, at_ns + parts[name]))
        at_ns += parts[name]
    spans += engine
    at_ns = record.arrived_ns + account.wall_ns - sum(parts.get(name, 0) for name in _AFTER)
    for name in _AFTER:
        spans.append(Span(name, at_ns, at_ns + parts.get(name, 0)))
        at_ns += parts.get(name, 0)
    return [_span(one, record.arrived_ns) for one in spans if one.end_ns > one.start_ns]


def _span(span: Span, arrived_ns: int) -> Json:
    start_ms, end_ms = ((at_ns - arrived_ns) / 1e6 for at_ns in (span.start_ns, span.end_ns))
    return {"name": span.name, "start_ms": start_ms, "end_ms": end_ms}


def drawn(recording: Recording, key: int, timings: Timings) -> list[Span]:
    """From when the engine was asked to finished_ns. Empty where the recording does not have all of it."""
    lives, until_ns = recording.lives, timings.finished_ns
    ours = lives.key == key
    if not ((lives.what == ARRIVED) & ours & (lives.at_ns == timings.arrival_ns)).any():
        return []
    rows = np.flatnonzero(recording.rows.key == key)
    rows = rows[recording.steps.collected_ns[recording.step_of[rows]] <= until_ns]
    if len(rows) != timings.steps:
        return []
    turns = [(int(at), int(what)) for at, what in zip(lives.at_ns[ours], lives.what[ours], strict=True)]
    spans = _walk([turn for turn in turns if turn[0] <= until_ns], list(_steps(recording, rows)), timings)
    return _with_window(list(_merged(spans)), timings)


@dataclass(frozen=True, slots=True)
class _Step:
    begin_ns: int
    end_ns: int
    phase: str


def _steps(recording: Recording, rows: np.ndarray) -> Iterator[_Step]:
    """A step begins, for whoever looks at all of them, when the one before was committed; the first at any time."""
    steps = recording.steps
    for row, step in zip(rows, recording.step_of[rows], strict=True):
        begin = steps.collected_ns[step - 1] if step else 0
        yield _Step(int(begin), int(steps.collected_ns[step]), PHASES[recording.rows.phase[row]])


def _walk(turns: list[tuple[int, int]], steps: list[_Step], timings: Timings) -> Iterator[Span]:
    """Contiguous spans; neighbours may have the same name, and some are empty."""
    at_ns, waiting, seated = timings.arrival_ns, "queued", False
    events: list[tuple[int, int, int | _Step]] = [(step.end_ns, 0, step) for step in steps]
    events += [(at, 1, what) for at, what in turns if what in (ADMITTED, PREEMPTED, ENDED)]
    for when_ns, _, event in sorted(events, key=lambda one: one[:2]):
        if isinstance(event, _Step):
            begin_ns = max(at_ns, event.begin_ns)
            yield Span("others", at_ns, begin_ns)
            yield Span(event.phase, begin_ns, when_ns)
        else:
            waiting = "preempted" if event == PREEMPTED else waiting
            yield Span("others" if seated and event != PREEMPTED else waiting, at_ns, when_ns)
            seated = event == ADMITTED
        at_ns = when_ns
    yield Span("others" if seated else waiting, at_ns, timings.finished_ns)


def _merged(spans: Iterator[Span]) -> Iterator[Span]:
    run: Span | None = None
    for span in spans:
        if span.end_ns <= span.start_ns:
            continue
        if run is not None and run.name == span.name:
            run = Span(run.name, run.start_ns, span.end_ns)
            continue
        if run is not None:
            yield run
        run = span
    if run is not None:
        yield run


def _with_window(spans: list[Span], timings: Timings) -> list[Span]:
    """A policy keeps back last, so the end of the first wait is what it held."""
    if not timings.held_ns or not spans or spans[0].name != "queued":
        return spans
    first = spans[0]
    turn_ns = max(first.start_ns, first.end_ns - timings.held_ns)
    parts = Span("queued", first.start_ns, turn_ns), Span("window", turn_ns, first.end_ns)
    return [*(part for part in parts if part.end_ns > part.start_ns), *spans[1:]]


def from_stamps(timings: Timings) -> list[Span]:
    """Where the recording has lost it: what the three stamps say, in which prefill and decode hold other parts too."""
    admitted_ns = timings.admitted_ns or timings.finished_ns
    first_ns = timings.first_token_ns or timings.finished_ns
    spans = (
        Span("queued", timings.arrival_ns, admitted_ns),
        Span("prefill", admitted_ns, first_ns),
        Span("decode", first_ns, timings.finished_ns),
    )
    return _with_window([span for span in spans if span.end_ns > span.start_ns], timings)
