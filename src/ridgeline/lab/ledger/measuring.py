"""Ledger: predicted, timed and counted side by side, for kinds of steps. Knows rigs, clocks and costs; knows no table.

Steps nobody watches and steps whose regions are timed take turns, pair by pair, so that whatever the machine does in
between hits both; the first of a pair changes with every pair, because a sequence grows by a token with every step.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from ridgeline.bench.order import LEAST_ROUNDS
from ridgeline.core.ceilings import Ceilings
from ridgeline.core.cost import StepShape, step_costs
from ridgeline.core.errors import ConfigError
from ridgeline.core.floor import Floor, floors
from ridgeline.lab.ledger.entries import Entry, Phase, Predicted, Spread, Step
from ridgeline.lab.machine import Progress
from ridgeline.lab.rig import Rig, Workbench
from ridgeline.runner.places import REGION_OF
from ridgeline.runner.regions import PLACES, RegionClock, instrument, region_clock
from ridgeline.runner.tally import Tally

UNCOUNTED = "hardware counters were not asked for"
_STEPS_PER_PROMPT = 6  # a prompt takes as long as many decode steps, and fewer are enough for a median

Ready = Callable[[], Callable[[], None]]
"""Prepares one step, and returns the function that runs it."""


@dataclass(frozen=True, slots=True)
class LedgerOrder:
    """What is asked for. batches: of decode steps; prefill_tokens: of a prompt that is computed whole, 0 for none.
    steps: in a round, watched and not watched, each. Raises ConfigError, naming the option."""

    batches: tuple[int, ...] = (1, 8, 32)
    context: int = 256
    steps: int = 24
    rounds: int = 5
    prefill_tokens: int = 512

    def __post_init__(self) -> None:
        if self.rounds < LEAST_ROUNDS:
            raise ConfigError(
                f"--rounds: {self.rounds} is too few to tell a difference from chance; at least {LEAST_ROUNDS}"
            )
        for name, value, low in (
            *(("batch", batch, 1) for batch in self.batches),
            ("context", self.context, 1),
            ("steps", self.steps, 2),
            ("prefill", self.prefill_tokens, 0),
        ):
            if value < low:
                raise ConfigError(f"--{name}: {value} is too small; it must be at least {low}")
        if not self.batches and not self.prefill_tokens:
            raise ConfigError("there is nothing to measure: give --batch or --prefill")

    @property
    def decode_steps(self) -> int:
        """That a sequence makes in a round: pairs, one of them to warm up, and the step that is counted."""
        return 2 * (self.steps + 1) + 1

    @property
    def prompts(self) -> int:
        """Prompts in a round, watched and not watched, each."""
        return max(2, self.steps // _STEPS_PER_PROMPT)

    @property
    def whole(self) -> int:
        """Pairs of steps in all."""
        return self.rounds * (len(self.batches) * self.steps + (self.prompts if self.prefill_tokens else 0))


def measure(bench: Workbench, ceilings: Ceilings, order: LedgerOrder, progress: Progress) -> list[Step]:
    """Every kind of step. Raises ConfigError where the model has no room for one."""
    return list(each_step(bench, ceilings, order, progress))


def each_step(bench: Workbench, ceilings: Ceilings, order: LedgerOrder, progress: Progress) -> Iterator[Step]:
    """Decode steps at every batch, then a prompt; each as soon as it is measured, so that an interrupt keeps those
    before it. Raises ConfigError where the model has no room for one, before anything is measured."""
    if order.batches:
        bench.longest(order.context, order.decode_steps)
    if order.prefill_tokens:
        bench.longest(order.prefill_tokens, 1, option="--prefill")
    ceilings.peak(bench.formats.compute)
    work = _Work(bench, ceilings, order, progress)
    for batch in order.batches:
        yield work.decode(batch)
    if order.prefill_tokens:
        yield work.prefill()


@dataclass(slots=True)
class _Samples:
    """Of the rounds so far: steps nobody watched, watched ones, and of these the time in every place. [round][step]"""

    off: list[list[float]] = field(default_factory=list)
    on: list[list[float]] = field(default_factory=list)
    places: list[list[list[int]]] = field(default_factory=list)
    tally: Tally | None = None
    padding: int = 0

    def begin(self) -> None:
        """A round."""
        for kind in (self.off, self.on, self.places):
            kind.append([])


@dataclass(slots=True)
class _Work:
    bench: Workbench
    ceilings: Ceilings
    order: LedgerOrder
    progress: Progress
    done: int = 0

    def decode(self, batch: int) -> Step:
        with self._rig(batch, self.order.context, self.order.decode_steps) as rig:
            samples, clock = _Samples(), region_clock(rig.runner.device)
            for _ in range(self.order.rounds):
                samples.begin()
                with rig.decoding() as one:
                    self._round(rig, lambda: one, self.order.steps, samples, clock, f"decode, batch {batch}")
            return self._step("decode", rig, batch, samples)

    def prefill(self) -> Step:
        tokens = self.order.prefill_tokens
        with self._rig(1, tokens, 1) as rig:
            samples, clock = _Samples(), region_clock(rig.runner.device)
            for _ in range(self.order.rounds):
                samples.begin()
                self._round(
                    rig, partial(rig.prompts, tokens), self.order.prompts, samples, clock, f"prefill, {tokens} tokens"
                )
            return self._step("prefill", rig, tokens, samples)

    @contextmanager
    def _rig(self, batch: int, context: int, steps: int) -> Iterator[Rig]:
        self.progress("warming up", self.done, self.order.whole)
        yield self.bench.rig(batch, context, steps)
        gc.collect()  # engine and rig know each other; the next one needs the memory of this one's cache

    def _round(self, rig: Rig, ready: Ready, pairs: int, samples: _Samples, clock: RegionClock, what: str) -> None:
        self._pair(rig, ready, samples, clock, first_off=True)
        for kind in (samples.off, samples.on, samples.places):
            kind[-1].clear()
        for pair in range(pairs):
            self.progress(what, self.done, self.order.whole)
            if samples.tally is None and pair == pairs // 2:  # in the middle, where the context is what was asked for
                samples.tally = _counted(rig, ready())
                samples.padding = rig.last.padding
            self._pair(rig, ready, samples, clock, first_off=pair % 2 == 0)
            self.done += 1

    def _pair(self, rig: Rig, ready: Ready, samples: _Samples, clock: RegionClock, *, first_off: bool) -> None:
        for off in (first_off, not first_off):
            if off:
                samples.off[-1].append(_timed(ready()))
            else:
                spent = _watched(rig, ready(), clock)
                samples.on[-1].append(sum(spent))
                samples.places[-1].append(spent)

    def _step(self, phase: Phase, rig: Rig, tokens: int, samples: _Samples) -> Step:
        shape = rig.shape if phase == "decode" else StepShape.prefill(tokens)
        predicted: dict[tuple[str, str], list[Floor]] = {}
        formats = self.bench.formats
        for floor in floors(step_costs(rig.spec, shape, formats), self.ceilings, formats.compute):
            predicted.setdefault((floor.cost.region, floor.cost.name), []).append(floor)
        assert samples.tally is not None
        places, middle = [], middle_half(samples.off, samples.on)
        for at, place in enumerate(PLACES):
            floor_of = Predicted.of(predicted.get((REGION_OF[place], place), ()))
            timed = Spread.within([[spent[at] for spent in steps] for steps in samples.places], middle)
            calls, operands = samples.tally.calls[at], samples.tally.operand_bytes[at]
            places.append(Entry(REGION_OF[place], place, floor_of, timed, calls, operands, None))
        return Step(
            phase=phase,
            batch=rig.batch,
            context=rig.context,
            tokens=tokens,
            step_ns=Spread.within(samples.off, middle),
            twin_ns=Spread.within(samples.on, middle),
            rounds=tuple(zip(map(median, samples.off), map(median, samples.on), strict=True)),
            padding=samples.padding,
            places=tuple(places),
            uncounted=UNCOUNTED,
        )


def middle_half(off: Sequence[Sequence[float]], on: Sequence[Sequence[float]]) -> list[int]:
    """Which pairs of steps, counted through all rounds, lie between the quartiles by the time of both. Means over the
    same steps add up, which medians of each place by itself do not; what disturbed a step as a whole is left out; and a
    machine that changes its pace changes both of a pair, so that the sum of the places stays comparable with the step.
    """
    totals = [a + b for without, watched in zip(off, on, strict=True) for a, b in zip(without, watched, strict=True)]
    order = sorted(range(len(totals)), key=lambda at: totals[at])
    cut = len(order) // 4
    return order[cut : len(order) - cut]


def _timed(run: Callable[[], None]) -> float:
    """Of a step as configured, which nobody watches."""
    begun = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - begun


def _watched(rig: Rig, run: Callable[[], None], clock: RegionClock) -> list[int]:
    with instrument(rig.runner, clock):
        clock.begin()
        run()
        return clock.end()


def _counted(rig: Rig, run: Callable[[], None]) -> Tally:
    tally = Tally()
    with instrument(rig.runner, tally), tally.counting():
        run()
    return tally
