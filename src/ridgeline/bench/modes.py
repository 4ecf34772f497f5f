"""Modes: what the client does with a server that is ready, and what it then tells. One object a mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from rich.console import Console

from ridgeline.bench import stories
from ridgeline.bench.batches import print_batches, seen, summary
from ridgeline.bench.levels import level_of, measured, one_at_a_time, print_levels
from ridgeline.bench.load import Load
from ridgeline.bench.options import ClientOptions
from ridgeline.bench.records import Outcome
from ridgeline.bench.timeline import draw

# Fewer requests make a mean that jumps about; more would make the small levels the longest part of the run.
MIN_REQUESTS = 8
ROUNDS = 2
WARM_UP_TOKENS = 4
NEEDS_RIDGELINE = (
    "The answers carry no timings, so this is not a Ridgeline server: the drawing, the batches and the time in the "
    "window need one. What follows is measured by the client alone."
)


class Mode(Protocol):
    @property
    def num_requests(self) -> int:
        """How many requests the whole run sends."""

    async def drive(self, load: Load) -> None:
        """Sends the load; may be cancelled at any time."""

    def report(self, console: Console, outcomes: Sequence[Outcome]) -> None:
        """Prints what was seen. At least one of the outcomes, sorted by number, has a reply."""


class Concurrent:
    """Requests started by the clock, drawn over time."""

    def __init__(self, options: ClientOptions) -> None:
        self._shapes = stories.varied(options.num_requests, options.max_tokens, options.seed, options.prompt)
        self._delay_s = options.delay_ms / 1e3

    @property
    def num_requests(self) -> int:
        return len(self._shapes)

    async def drive(self, load: Load) -> None:
        await load.open_loop((i * self._delay_s, shape) for i, shape in enumerate(self._shapes))

    def report(self, console: Console, outcomes: Sequence[Outcome]) -> None:
        timings = [o.timings for o in outcomes if o.timings]
        if timings:
            draw(console, outcomes)
            console.print()
            print_batches(console, timings)
        else:
            console.print(NEEDS_RIDGELINE, highlight=False)
        console.print()
        console.print(summary(outcomes), highlight=False)
        for sentence in seen(timings):
            console.print(sentence, highlight=False)


class Benchmark:
    """Closed loops of more and more requests in flight, as a table."""

    def __init__(self, options: ClientOptions) -> None:
        self._shape = stories.equal(options.max_tokens, options.seed, options.prompt)
        self._levels = options.levels

    @property
    def num_requests(self) -> int:
        return sum(level + self._count(level) for level in self._levels)

    async def drive(self, load: Load) -> None:
        """Each level behind a short warm-up of its own, since shapes that are new to a server cost extra once.

        A level in which every request failed is the last: more in flight would only fail more.
        """
        warm_up = replace(self._shape, max_tokens=min(WARM_UP_TOKENS, self._shape.max_tokens))
        for level in self._levels:
            await load.closed_loop([warm_up] * level, level, "warm-up")
            await load.closed_loop([self._shape] * self._count(level), level, "measured")
            if level_of(level, load.outcomes) is None:
                return

    def report(self, console: Console, outcomes: Sequence[Outcome]) -> None:
        if not measured(outcomes):
            return
        if not any(o.timings for o in outcomes):
            console.print(NEEDS_RIDGELINE, highlight=False)
        rows = [level for level in (level_of(n, outcomes) for n in self._levels) if level is not None]
        print_levels(console, rows, one_at_a_time(outcomes))
        shape = f"{self._shape.max_tokens} new tokens a request"
        prompt_tokens = {o.reply.prompt_tokens for o in measured(outcomes) if o.reply}
        console.print(
            f"Every request: {'/'.join(map(str, sorted(prompt_tokens)))} prompt tokens, {shape}.", highlight=False
        )

    @staticmethod
    def _count(level: int) -> int:
        return max(MIN_REQUESTS, ROUNDS * level)


CHOICES: dict[str, type[Concurrent] | type[Benchmark]] = {"concurrent": Concurrent, "benchmark": Benchmark}
