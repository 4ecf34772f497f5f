"""The flight recorder's recording: the newest steps of an engine, who was in them, and the turns of requests' lives.

A recording is columns: numpy arrays of equal length, read-only. Its JSON is what the server hands out, the page draws
and a crash leaves in a file; core/flightfile.py reads it. Knows no engine, no ring and no HTTP.
Times are nanoseconds of the machine's monotonic clock here, and microseconds since `origin_ns` in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

import numpy as np

from ridgeline.core.errors import ConfigError
from ridgeline.core.types import NO_INTS, Bools, Ints

KIND, VERSION = "ridgeline-recording", 1

PHASES = ("prefill", "decode", "recomputed")
"""What a row's step computed: prompt positions for the first time, what follows them, or what it had computed before a
preemption or a restart."""
PREFILL, DECODE, RECOMPUTED = range(3)

STALLS = ("", "window", "slots", "blocks", "budget", "order")
"""Why somebody who waited or was seated had no part in a step: the policy waited for company, or no slot, no block or
no token of the step's budget was left, or the policy took others first."""
NO_STALL, WINDOW, SLOTS, BLOCKS, BUDGET, ORDER = range(6)

WHATS = ("arrived", "admitted", "first_token", "preempted", "ended")
"""Turns of a request's life. After `preempted` it is admitted again."""
ARRIVED, ADMITTED, FIRST_TOKEN, PREEMPTED, ENDED = range(5)

Reason = Literal["asked", "crash"]


@dataclass(frozen=True, slots=True)
class Columns:
    """Arrays of equal length; a field that ends in _ns is a time."""

    def __post_init__(self) -> None:
        sizes = {f.name: len(getattr(self, f.name)) for f in fields(self)}
        if len(set(sizes.values())) > 1:
            raise ConfigError(f"columns of one table must be equally long, not {sizes}")
        for f in fields(self):
            frozen = np.ascontiguousarray(getattr(self, f.name), np.int64).view()
            frozen.flags.writeable = False
            object.__setattr__(self, f.name, frozen)

    def __len__(self) -> int:
        column: Ints = getattr(self, fields(self)[0].name)
        return len(column)

    def taken(self, which: slice | Bools | Ints) -> Self:
        return type(self)(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    def json(self, origin_ns: int) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {}
        for f in fields(self):
            column = getattr(self, f.name)
            if f.name.endswith("_ns"):
                columns[f"{f.name[:-3]}_us"] = np.round((column - origin_ns) / 1000, 3).tolist()
            else:
                columns[f.name] = column.tolist()
        return columns


@dataclass(frozen=True, slots=True)
class Steps(Columns):
    """A launch and its collection each, in order. rows: how many of the Rows are of this step; tokens: made.

    positions, padding: processed by the device, and of no use. waiting, kv_blocks: after the step. stall: of STALLS.
    """

    serial: Ints = field(default_factory=lambda: NO_INTS)
    launched_ns: Ints = field(default_factory=lambda: NO_INTS)
    collected_ns: Ints = field(default_factory=lambda: NO_INTS)
    rows: Ints = field(default_factory=lambda: NO_INTS)
    tokens: Ints = field(default_factory=lambda: NO_INTS)
    positions: Ints = field(default_factory=lambda: NO_INTS)
    padding: Ints = field(default_factory=lambda: NO_INTS)
    waiting: Ints = field(default_factory=lambda: NO_INTS)
    kv_blocks: Ints = field(default_factory=lambda: NO_INTS)
    horizon: Ints = field(default_factory=lambda: NO_INTS)
    stall: Ints = field(default_factory=lambda: NO_INTS)


@dataclass(frozen=True, slots=True)
class Rows(Columns):
    """One request in one step each: positions [start, start + count) at first, `made` tokens; phase: of PHASES."""

    key: Ints = field(default_factory=lambda: NO_INTS)
    start: Ints = field(default_factory=lambda: NO_INTS)
    count: Ints = field(default_factory=lambda: NO_INTS)
    made: Ints = field(default_factory=lambda: NO_INTS)
    phase: Ints = field(default_factory=lambda: NO_INTS)


@dataclass(frozen=True, slots=True)
class Lives(Columns):
    """What became of requests, in order. serial: the newest step's that was planned by then; what: of WHATS."""

    key: Ints = field(default_factory=lambda: NO_INTS)
    at_ns: Ints = field(default_factory=lambda: NO_INTS)
    serial: Ints = field(default_factory=lambda: NO_INTS)
    what: Ints = field(default_factory=lambda: NO_INTS)


@dataclass(frozen=True, slots=True)
class Recording:
    """made_unix_s: when, of the wall clock. message: why the engine died, where the reason is `crash`.

    names: a request's id by key, where the front knows it. Of a request that is older than the ring, the beginning of
    its life may be missing.
    """

    model: str
    device: str
    batching: str
    block_size: int
    num_blocks: int
    made_unix_s: float
    steps: Steps
    rows: Rows
    lives: Lives
    reason: Reason = "asked"
    message: str | None = None
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if int(self.steps.rows.sum()) != len(self.rows):
            raise ConfigError(f"the steps have {self.steps.rows.sum()} rows, but {len(self.rows)} are there")

    @property
    def offsets(self) -> Ints:
        """[steps + 1]: step i has the rows from offsets[i] to offsets[i + 1]."""
        return np.concatenate((NO_INTS[:0], [0], np.cumsum(self.steps.rows)))

    @property
    def step_of(self) -> Ints:
        """[rows]: index of the step that a row is of."""
        return np.repeat(np.arange(len(self.steps)), self.steps.rows)

    @property
    def origin_ns(self) -> int:
        """The earliest moment in it."""
        times = [column.min() for column in (self.steps.launched_ns, self.lives.at_ns) if len(column)]
        return int(min(times, default=0))

    def between(self, first: int, end: int) -> Recording:
        """The steps with indices [first, end), and the lives of whoever was there at that time."""
        chosen = range(len(self.steps))[first:end]
        if not chosen:
            return replace(self, steps=Steps(), rows=Rows(), lives=Lives())
        offsets, last = self.offsets, chosen[-1]
        since_ns, until_ns = self.steps.launched_ns[chosen[0]], self.steps.collected_ns[last]
        lives = self.lives
        over = lives.key[(lives.what == ENDED) & (lives.at_ns < since_ns)]
        newest = last == len(self.steps) - 1
        kept = ~np.isin(lives.key, over) & (newest | (lives.at_ns <= until_ns))
        return replace(
            self,
            steps=self.steps.taken(slice(chosen[0], last + 1)),
            rows=self.rows.taken(slice(int(offsets[chosen[0]]), int(offsets[last + 1]))),
            lives=lives.taken(kept),
        )

    def newest(self, steps: int) -> Recording:
        first = len(self.steps) - steps
        return self.between(first, len(self.steps)) if first > 0 else self

    def stalls(self) -> list[str]:
        """[steps] in words."""
        return [STALLS[code] for code in self.steps.stall.tolist()]

    def named(self, names: Mapping[int, str]) -> Recording:
        """With those of the names that are of somebody in it."""
        return replace(self, names={key: names[key] for key in self.keys() if key in names})

    def keys(self) -> list[int]:
        """Everybody in it, by first appearance."""
        everybody = np.concatenate((self.lives.key, self.rows.key))
        _, first = np.unique(everybody, return_index=True)
        return [int(key) for key in everybody[np.sort(first)]]

    def json(self) -> dict[str, Any]:
        origin_ns = self.origin_ns
        return {
            "kind": KIND,
            "version": VERSION,
            "model": self.model,
            "device": self.device,
            "batching": self.batching,
            "block_size": self.block_size,
            "num_blocks": self.num_blocks,
            "made_unix_s": self.made_unix_s,
            "origin_ns": origin_ns,
            "reason": self.reason,
            "message": self.message,
            "steps": self.steps.json(origin_ns),
            "rows": self.rows.json(origin_ns),
            "lives": self.lives.json(origin_ns),
            "names": {str(key): name for key, name in self.names.items()},
            "phases": list(PHASES),
            "stalls": list(STALLS),
            "whats": list(WHATS),
        }

    def encoded(self) -> bytes:
        return json.dumps(self.json(), separators=(",", ":"), allow_nan=False).encode()
