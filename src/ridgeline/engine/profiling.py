"""Profiling: one trace at a time of an engine that serves, within bounds. Knows clocks and files; knows no profiler.

The engine's thread records and writes, so no step is made while a trace is written; the bounds keep that short.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ridgeline.core.profile import PlaceTime
from ridgeline.engine.messages import AskProfile, Profiled, ProfileMade

KEPT = 8
_OURS = re.compile(r"profile-\d{8}T\d{6}Z-\d+-\d+\.json\.gz")


class Recorder(Protocol):
    """Traces what the engine's thread and its device do. May raise OSError and RuntimeError."""

    def start(self, *, shapes: bool) -> None: ...

    def stop(self, path: Path) -> tuple[PlaceTime, ...]:
        """Writes the trace. Where that fails the recording has ended all the same."""
        ...

    def drop(self) -> None:
        """Ends the recording; nothing is written."""
        ...


class Profiler(Protocol):
    """wake_ns: when `turn` must be called at the latest; None: nothing is pending."""

    wake_ns: int | None

    def answer(self, ask: AskProfile) -> Profiled: ...

    def turn(self, *, stepped: bool) -> None:
        """After every turn of the loop, whether it made a step or not."""
        ...

    def close(self) -> None:
        """The loop has ended, for whatever reason."""
        ...


class NoProfiler:
    """An engine that nobody can ask for a profile."""

    wake_ns: int | None = None

    def answer(self, ask: AskProfile) -> Profiled:
        return Profiled(ask.id, refusal="this engine was built without a profiler", conflict=True)

    def turn(self, *, stepped: bool) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing runs."""


class Profiling:
    """folder: where the traces go; the newest KEPT of them stay. clock: the engine's, in nanoseconds."""

    def __init__(
        self,
        recorder: Recorder,
        folder: Path,
        clock: Callable[[], int],
        today: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._recorder, self._folder, self._clock, self._today = recorder, folder, clock, today
        self.wake_ns: int | None = None
        self._asked: AskProfile | None = None  # by whom the trace that runs was begun
        self._begun_ns = self._steps = self._serial = 0
        self._made: ProfileMade | None = None
        self._error: str | None = None
        self._unseen = False  # it ended by itself, and nobody has asked to stop it yet

    def answer(self, ask: AskProfile) -> Profiled:
        if ask.action == "start":
            return self._start(ask)
        if ask.action == "stop":
            return self._stop(ask)
        return self._state(ask)

    def turn(self, *, stepped: bool) -> None:
        if self._asked is None:
            return
        self._steps += stepped
        if self._steps >= self._asked.max_steps:
            self._end("max_steps")
        elif self.wake_ns is not None and self._clock() >= self.wake_ns:
            self._end("max_seconds")

    def close(self) -> None:
        """A trace that runs is lost: whoever ends the engine does not wait until one is written."""
        if self._asked is None:
            return
        self._asked = self.wake_ns = None
        with contextlib.suppress(OSError, RuntimeError):  # perhaps of the device for which the loop has ended
            self._recorder.drop()

    def _start(self, ask: AskProfile) -> Profiled:
        if self._asked is not None:
            return self._state(ask, 'a profile is running already; end it with {"action": "stop"}', conflict=True)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self._folder, os.W_OK):
                return self._state(ask, f"the folder of profiles, {self._folder}, cannot be written")
            self._recorder.start(shapes=ask.shapes)
        except (OSError, RuntimeError) as error:
            return self._state(ask, f"the profile could not be started: {error}")
        self._asked, self._begun_ns, self._steps = ask, self._clock(), 0
        self.wake_ns = self._begun_ns + round(ask.max_seconds * 1e9)
        self._made, self._error, self._unseen = None, None, False
        return self._state(ask)

    def _stop(self, ask: AskProfile) -> Profiled:
        if self._asked is not None:
            self._end("stop")
        elif not self._unseen:
            return self._state(ask, 'no profile is running; begin one with {"action": "start"}', conflict=True)
        self._unseen = False
        return self._state(ask, self._error)

    def _end(self, ended: str) -> None:
        took_s = (self._clock() - self._begun_ns) / 1e9
        self._asked, self.wake_ns, self._unseen = None, None, True
        self._serial += 1
        name = f"profile-{self._today():%Y%m%dT%H%M%SZ}-{os.getpid()}-{self._serial}.json.gz"
        try:
            places = self._recorder.stop(self._folder / name)
            size = (self._folder / name).stat().st_size
            self._made = ProfileMade(str(self._folder / name), size, self._steps, took_s, ended, places)
        except (OSError, RuntimeError) as error:
            self._error = f"the trace could not be written: {error}"
        with contextlib.suppress(OSError):  # the trace is there; that an old one stays is no reason to say it is not
            self._forget()

    def _forget(self) -> None:
        """Delete our own traces but the newest; their names sort by time."""
        ours = sorted(path for path in self._folder.iterdir() if _OURS.fullmatch(path.name))
        for old in ours[:-KEPT]:
            old.unlink(missing_ok=True)

    def _state(self, ask: AskProfile, refusal: str | None = None, *, conflict: bool = False) -> Profiled:
        run = self._asked
        return Profiled(
            ask.id,
            running=run is not None,
            seconds=0.0 if run is None else (self._clock() - self._begun_ns) / 1e9,
            steps=0 if run is None else self._steps,
            max_seconds=None if run is None else run.max_seconds,
            max_steps=None if run is None else run.max_steps,
            made=self._made,
            error=self._error,
            refusal=refusal,
            conflict=conflict,
        )
