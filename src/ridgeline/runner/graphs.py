"""Graphs: which launches are replays of a captured step, of how many rows, and when one is captured. Knows no model.

A graph is of a number of rows (the rest of them is nobody's) and of a way to choose tokens. It is captured after the
first launch that would have used it, between two steps, so service never waits for graphs that nobody needs; a launch
takes a larger one meanwhile, or the way of any other plan.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from ridgeline.attention.base import AnyAttention, SteadyAttention
from ridgeline.core.types import Plan
from ridgeline.runner.forward import Model
from ridgeline.runner.inputs import Packing
from ridgeline.runner.launched import Launched, Replayed
from ridgeline.runner.sampler import draw_or_greedy
from ridgeline.runner.slots import SlotTables
from ridgeline.runner.steady import TURNS, ChooseThere, SteadySteps

SEATS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Rows of graphs; above these every 128. At most a third of a large batch is nobody's."""
_STRIDE = 128


class Replays(Protocol):
    """What a runner asks before it packs a plan."""

    def launch(self, plan: Plan) -> Launched | None:
        """None: the plan must go another way, now or always. The slot tables are those that the plan begins with."""
        ...

    def between(self) -> None:
        """Between two steps: make ready what the last launches lacked, one thing at a time."""
        ...

    def idle(self) -> bool:
        """Nothing is to do: make ready one thing that launches may need. False: all is."""
        ...


class NoGraphs:
    """Every step is packed on the host and launched operation after operation."""

    def __init__(self, *_given: object) -> None: ...

    def launch(self, plan: Plan) -> None:
        """No plan is a replay."""

    def between(self) -> None:
        """Nothing is captured."""

    def idle(self) -> bool:
        return False


Key = tuple[int, bool]
"""Rows, and whether some of them draw."""


class Graphs:
    """A step in which every row computes one token and makes one is the replay of a captured step.

    Nothing is uploaded where the rows are those of the last one. Requests that want more of the sampler than a
    temperature (cuts, penalties, biases, min_tokens, log-probabilities) make the steps that they are in go the other
    way. On a CPU nothing is captured, and the step runs as it would be.
    """

    def __init__(self, model: Model, attention: AnyAttention, tables: SlotTables, packing: Packing) -> None:
        assert isinstance(attention, SteadyAttention), f"{type(attention).__name__} cannot plan on the device alone"
        self._tables, self._packing = tables, packing
        self._steps = SteadySteps(model, attention, tables)
        self._choose: dict[bool, ChooseThere] = {
            False: lambda hidden, _: model.greedy(hidden),
            True: lambda hidden, slots: draw_or_greedy(tables, model.logits(hidden), slots),
        }
        self._sizes = seats_of(tables.sizes.slots)
        self._graphs: dict[Key, Callable[[], None]] = {}
        self._wanted: Key | None = None

    def launch(self, plan: Plan) -> Launched | None:
        rows, turns = plan.rows, plan.horizon
        if plan.counts.max() > 1 or plan.promise.min() < 1 or turns > TURNS or self._tables.asks.special[rows].any():
            return None
        draws = bool(self._tables.asks.draws[rows].any())
        found = self._found(self._packing.seats(plan), draws)
        if found is None:
            return None
        (seats, _), replay = found
        self._steps.seat(rows)
        first = self._steps.begin(turns)
        for _ in range(turns):
            replay()
        made = self._tables.device.download(self._steps.made(first, turns, seats))
        return Replayed(plan.serial, len(rows), made)

    def between(self) -> None:
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            self._capture(wanted)

    def idle(self) -> bool:
        # The largest first: what it computes on the way has room for all others.
        keys = ((seats, draws) for seats in reversed(self._sizes) for draws in (True, False))
        missing = next((key for key in keys if key not in self._graphs), None)
        if missing is not None:
            self._capture(missing)
        return missing is not None

    def _found(self, seats: int, draws: bool) -> tuple[Key, Callable[[], None]] | None:
        """A graph that will do, with its key. One that fits better is captured next."""
        best = self._sizes[bisect_left(self._sizes, seats)], draws
        for key in self._fitting(*best):
            replay = self._graphs.get(key)
            if replay is not None:
                self._wanted = None if key == best else best
                return key, replay
        self._wanted = best
        return None

    def _fitting(self, seats: int, draws: bool) -> Iterator[Key]:
        for size in self._sizes[bisect_left(self._sizes, seats) :]:
            if not draws:
                yield size, False
            yield size, True  # greedy rows are themselves among rows that draw

    def _capture(self, key: Key) -> None:
        seats, draws = key
        self._steps.rehearse()
        self._graphs[key] = self._tables.device.capture(partial(self._steps.step, seats, self._choose[draws]))


def seats_of(slots: int) -> list[int]:
    """Rows of the graphs that serve up to so many rows."""
    sizes = [*SEATS, *range(SEATS[-1] + _STRIDE, slots, _STRIDE)]
    return [size for size in sizes if size < slots] + [slots]
