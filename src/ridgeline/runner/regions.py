"""Regions: where in the model a step is, from moment to moment. Knows places; knows no op's insides and no hardware.

Operations are wrapped from outside by their place in the model, so no model has a timer in it, and where nobody watches
nothing is wrapped. A step is always in exactly one place: an operation that is entered interrupts the one around it and
gives back to it when it is left, and what is no operation of the model (planning, packing, uploads, dispatch between
operations, the download, the commit) is the host's. So the times of all places add up to the step by construction, and
can be held against the time of steps that nobody watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from ridgeline.device.base import Device, Stamps
from ridgeline.runner import places
from ridgeline.runner.places import REGION_OF, wrap_places
from ridgeline.runner.runner import Runner

Fn = TypeVar("Fn", bound=Callable[..., Any])

PLACES = tuple(REGION_OF)
"""Watchers speak of places by their index here."""
HOST = PLACES.index(places.HOST)


class Watcher(Protocol):
    """Is told which place a step enters, and that it leaves it for the one around."""

    def enter(self, place: int) -> None: ...

    def leave(self) -> None: ...


class RegionClock:
    """`begin`, the step, `end`: how long it was in each place."""

    def __init__(self, stamps: Stamps) -> None:
        self._stamps, self._mark = stamps, stamps.mark
        self._entered: list[int] = []
        self._inside: list[int] = []

    def begin(self) -> None:
        """A step that was not ended (an exception) is forgotten."""
        self._stamps.read()
        self._entered, self._inside = [HOST], [HOST]
        self._mark()

    def enter(self, place: int) -> None:
        self._inside.append(place)
        self._entered.append(place)
        self._mark()

    def leave(self) -> None:
        self._mark()
        self._inside.pop()
        self._entered.append(self._inside[-1])

    def end(self) -> list[int]:
        """Nanoseconds in each of PLACES. Waits for the device, after the last mark."""
        self._mark()
        moments = self._stamps.read()
        spent = [0] * len(PLACES)
        for place, begun, ended in zip(self._entered, moments, moments[1:], strict=False):
            spent[place] += ended - begun
        return spent


def region_clock(device: Device) -> RegionClock:
    return RegionClock(device.stamps())


@contextmanager
def instrument(runner: Runner, watcher: Watcher) -> Iterator[None]:
    """Inside, steps run operation after operation (also where a graph or a compiled model would run as configured), and
    the watcher is told of every place; after it everything is as before, whatever happened."""
    undo = wrap_places(runner, lambda place, _, operation: watched(operation, watcher, PLACES.index(place)))
    forward, runner.forward = runner.forward, runner.eager
    try:
        yield
    finally:
        runner.forward = forward
        undo()


def watched(fn: Fn, watcher: Watcher, place: int) -> Fn:
    """fn, and the watcher is told when it is entered and left."""
    enter, leave = watcher.enter, watcher.leave

    def call(*args: Any, **named: Any) -> Any:
        enter(place)
        try:
            return fn(*args, **named)
        finally:
            leave()

    return call  # type: ignore[return-value]
