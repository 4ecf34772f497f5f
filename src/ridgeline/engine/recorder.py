"""Flight recorder: keeps what an engine did last, for whoever started it. Knows steps and lives; knows no request.

The process that starts an engine makes the recorder and hands it over; the engine's sink writes what the other reads,
also when the engine was killed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

from ridgeline.core.flight import Lives, Rows, Steps
from ridgeline.core.types import StepRecord
from ridgeline.engine.engine import Life, NullSink, Sink
from ridgeline.engine.ring import Ring


class Recorder(Sink, Protocol):
    """A sink that may remember."""

    def newest(self, steps: int) -> tuple[Steps, Rows, Lives] | None:
        """None: nothing is recorded here."""
        ...


class NoRecorder(NullSink):
    @staticmethod
    def create() -> Recorder:
        return NoRecorder()

    def newest(self, steps: int) -> tuple[Steps, Rows, Lives] | None:  # noqa: ARG002
        return None


class FlightRecorder:
    """Always on: a step costs it a few microseconds, whatever the batch."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def step(self, record: StepRecord) -> None:
        self._ring.add_step(record)

    def lives(self, lives: Sequence[Life]) -> None:
        self._ring.add_lives(lives)

    @staticmethod
    def create() -> Recorder:
        if sys.platform == "win32":  # a file without a name cannot be handed to another process there
            return NoRecorder()
        return FlightRecorder(Ring.create())

    def __reduce__(self) -> tuple[type[FlightRecorder], tuple[Ring]]:
        return FlightRecorder, (self._ring,)

    def newest(self, steps: int) -> tuple[Steps, Rows, Lives] | None:
        return self._ring.newest(steps)
