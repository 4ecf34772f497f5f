"""Cells: what each request was doing in each step of a recording. Knows no terminal, no SVG and no file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ridgeline.core.errors import ConfigError
from ridgeline.core.flight import ADMITTED, ENDED, PHASES, PREEMPTED, STALLS, Recording
from ridgeline.core.types import Bools, Ints


@dataclass(frozen=True, slots=True)
class Kind:
    """name: as in the recording's contract; meaning: the legend's words."""

    name: str
    meaning: str


KINDS = (
    Kind("none", "not there"),
    Kind("prefill", "prefill"),
    Kind("decode", "decode"),
    Kind("recomputed", "computed again"),
    Kind("queued", "waiting for a seat"),
    Kind("stalled", "seated, but not in the step"),
    Kind("preempted", "preempted"),
    Kind("retired", "ended in this step"),
)
NONE, QUEUED, STALLED, PREEMPTED_CELL, RETIRED = 0, 4, 5, 6, 7
_FIRST_PHASE = 1
assert tuple(kind.name for kind in KINDS[_FIRST_PHASE:QUEUED]) == PHASES


@dataclass(frozen=True, slots=True)
class Pipeline:
    """keys: of the requests, by first appearance. cells: [requests, steps], indices into KINDS."""

    recording: Recording
    keys: tuple[int, ...]
    cells: Ints

    @staticmethod
    def of(recording: Recording, request: str | None = None) -> Pipeline:
        """request: only this one, by id, the beginning of an id, or key. Raises ConfigError if it is not there."""
        if not len(recording.steps):
            raise ConfigError("the recording has no steps there")
        known = recording.keys()
        everybody = [key for key in known if request is None or _called(recording, key, request)]
        if request is not None and not everybody:
            raise ConfigError(f"--request {request:.80}: nobody of that id or key is in these steps")
        rows = [_cells(recording, key) for key in everybody]
        seen = [(key, row) for key, row in zip(everybody, rows, strict=True) if row.any() or request is not None]
        width = len(recording.steps)
        cells = np.stack([row for _, row in seen]) if seen else np.zeros((0, width), np.int64)
        return Pipeline(recording, tuple(key for key, _ in seen), cells)

    def name(self, key: int) -> str:
        return printable(self.recording.names.get(key, str(key)))


def printable(text: str) -> str:
    """A recording's words, fit for a line of a terminal and for XML."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _called(recording: Recording, key: int, request: str) -> bool:
    return str(key) == request or recording.names.get(key, "\0").startswith(request)


def _cells(recording: Recording, key: int) -> Ints:
    """[steps] of one request. What it did while it was in no step follows from its life when the step was collected."""
    steps, lives, rows = recording.steps, recording.lives, recording.rows
    mine: Bools = lives.key == key
    at_ns, whats = lives.at_ns[mine], lives.what[mine]
    cells: Ints = np.full(len(steps), _before(whats), np.int64)
    for when, what in zip(at_ns.tolist(), whats.tolist(), strict=True):
        state = {ADMITTED: STALLED, PREEMPTED: PREEMPTED_CELL, ENDED: NONE}.get(what)
        if state is not None:
            # A seat that was taken counts from the next step to be collected, an end from the step after it.
            cells[np.searchsorted(steps.collected_ns, when, "right" if what == ENDED else "left") :] = state
    if len(whats) and whats[0] == 0:
        cells[: np.searchsorted(steps.collected_ns, at_ns[0])] = NONE
    there = rows.key == key
    index, phases = recording.step_of[there], rows.phase[there]
    if not len(whats) and len(index):  # nothing is known of its life but these rows
        cells[: index[0]], cells[index[-1] + 1 :] = NONE, NONE
    ended = at_ns[whats == ENDED]
    if len(ended):
        kept = steps.collected_ns[index] <= ended[-1]  # what was launched for one who is over is dropped
        index, phases = index[kept], phases[kept]
    cells[index] = phases + _FIRST_PHASE
    if len(ended) and (last := int(np.searchsorted(steps.collected_ns, ended[-1]))) < len(steps):
        cells[last] = RETIRED
    return cells


def _before(whats: Ints) -> int:
    """What a request was before the first thing that is known of its life."""
    if not len(whats):
        return STALLED
    return QUEUED if whats[0] in (0, ADMITTED) else STALLED


def _time(us: float) -> str:
    return f"{us:.3g} us" if us < 1000 else f"{us / 1000:,.1f} ms"


@dataclass(frozen=True, slots=True)
class Summary:
    """tokens_per_step: the pipeline's IPC. bubbles: padding among the positions. stalls: steps in which somebody had no
    part, by cause; stalled_cells: seats that sat out a step."""

    steps: int
    tokens: int
    rows: int
    step_us: float
    tokens_per_step: float
    bubbles: float
    stalls: dict[str, int]
    stalled_cells: int
    queued_cells: int

    @staticmethod
    def of(pipeline: Pipeline) -> Summary:
        steps = pipeline.recording.steps
        count, positions = len(steps), int(steps.positions.sum())
        causes = Counter(steps.stall.tolist())
        return Summary(
            steps=count,
            tokens=int(steps.tokens.sum()),
            rows=int(steps.rows.sum()),
            step_us=float(np.median(steps.collected_ns - steps.launched_ns)) / 1e3,
            tokens_per_step=int(steps.tokens.sum()) / count,
            bubbles=int(steps.padding.sum()) / positions if positions else 0.0,
            stalls={name: causes[code] for code, name in enumerate(STALLS) if name and causes[code]},
            stalled_cells=int(np.count_nonzero(pipeline.cells == STALLED)),
            queued_cells=int(np.count_nonzero(pipeline.cells == QUEUED)),
        )

    def lines(self) -> list[str]:
        """For people."""
        causes = ", ".join(f"{name} in {count}" for name, count in self.stalls.items())
        return [
            f"{self.steps} steps, median {_time(self.step_us)}; {self.tokens} tokens, {self.tokens_per_step:.2f} a "
            f"step, the pipeline's IPC; {self.rows / self.steps:.2f} rows a step",
            f"bubbles of padding: {self.bubbles:.1%} of the positions",
            f"somebody had no part in a step for want of: {causes}"
            if self.stalls
            else "nobody who waited or was seated had no part in a step",
            f"cells stalled: {self.stalled_cells}, waiting for a seat: {self.queued_cells}",
        ]
