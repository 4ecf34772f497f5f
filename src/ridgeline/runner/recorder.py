"""Recorder: traces a running runner with the places of its model named. Knows no bounds and no message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ridgeline.core.profile import PlaceTime
from ridgeline.device.trace import Trace, TraceRanges
from ridgeline.runner.places import REGION_OF, ranged, wrap_places
from ridgeline.runner.runner import Runner


class Recorder:
    """start, some launches, stop; as often as one likes. Between two of them the runner is as if there were none."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._running: tuple[Trace, Callable[[], None]] | None = None

    def start(self, *, shapes: bool = False) -> None:
        """Raises RuntimeError where another profiler has the hardware."""
        assert self._running is None
        trace = Trace(shapes=shapes)
        trace.start()
        self._running = trace, wrap_places(self._runner, ranged(TraceRanges()))

    def stop(self, path: Path) -> tuple[PlaceTime, ...]:
        """Writes the trace. Raises OSError and RuntimeError; it has ended then too."""
        trace = self._ended()
        trace.write(path)
        return places_of(trace)

    def drop(self) -> None:
        """Ends the trace without writing it. Raises RuntimeError for a device that does not answer; it ended too."""
        self._ended()

    def _ended(self) -> Trace:
        assert self._running is not None
        (trace, undo), self._running = self._running, None
        undo()
        trace.stop()
        return trace


def places_of(trace: Trace) -> tuple[PlaceTime, ...]:
    """In the order of the model."""
    found = trace.ranges()
    rows = [(place, found[place]) for place in REGION_OF if place in found]
    return tuple(PlaceTime(REGION_OF[place], place, row.calls, row.host_ns, row.device_ns) for place, row in rows)
