"""Share: the part of a load that one client process sends, and what it cost that process. Knows no other process."""

from __future__ import annotations

import contextlib
import math
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, TypeVar

import aiohttp

from ridgeline.bench.arrivals import ARRIVALS
from ridgeline.bench.clock import Clock, WallClock
from ridgeline.bench.datasets import Example
from ridgeline.bench.load import Load
from ridgeline.bench.order import Order
from ridgeline.bench.records import Outcome, Shape
from ridgeline.bench.remote import Remote

# Above it, delays of the client look like delays of the server.
BUSY_SHARE = 0.8
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """A server as it was found. fields: what its requests carry besides the order's, its model's name."""

    url: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Share:
    """Request i of the load belongs to share i % of. seed: the round's. examples: of the workload's file."""

    order: Order
    target: Target
    seed: int
    tokens_per_word: float
    examples: Sequence[Example] = field(default=(), repr=False)
    index: int = 0
    of: int = 1

    def shapes(self) -> Iterator[Shape]:
        every = self.order.workload.shapes(self.seed, self.examples, self.tokens_per_word)
        return islice(every, self.index, self.order.num_requests, self.of)

    def schedule(self) -> Iterator[tuple[float, Shape]]:
        """(seconds since the origin, request) of an open loop."""
        order = self.order
        assert order.request_rate is not None
        # A stream of its own, so that another rate sends the same requests.
        rng = random.Random(f"arrivals {self.seed}")
        every = ARRIVALS[order.arrivals](order.request_rate, rng)
        for planned_s, shape in zip(islice(every, self.index, None, self.of), self.shapes(), strict=False):
            if planned_s >= (order.duration_s or math.inf):
                return
            yield planned_s, shape

    @property
    def in_flight(self) -> int | None:
        """Of a closed loop."""
        if self.order.concurrency is None:
            return None
        whole, rest = divmod(self.order.concurrency, self.of)
        return whole + (self.index < rest)


@dataclass(slots=True)
class Work:
    """What a share has done so far; an interrupted one keeps it. cpu_share: of one core."""

    outcomes: list[Outcome] = field(default_factory=list)
    cpu_share: float = 0.0


async def run_share(
    share: Share,
    work: Work,
    agree: Callable[[], Awaitable[float]],
    on_outcome: Callable[[Outcome], None],
    clock: Clock | None = None,
) -> None:
    """Sends the share's requests; work grows with every request that ends.

    agree: called once everything is prepared, so that preparing delays no request; gives the clock's time to begin at.
    """
    clock = clock or WallClock()
    _allow_many_sockets()
    schedule = _begun(share.schedule()) if share.in_flight is None else iter(())
    shapes = iter(()) if share.in_flight is None else _begun(share.shapes())
    async with connect(share.order, share.target, clock) as remote:
        origin_s = await agree()
        await clock.sleep(max(0.0, origin_s - clock.now()))
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        try:
            load = Load(remote, clock, on_outcome, work.outcomes, origin_s)
            if share.in_flight is None:
                await load.open_loop(schedule)
            else:
                until_s = share.order.duration_s or math.inf
                await load.closed_loop(shapes, share.in_flight, "measured", until_s)
        finally:
            spent_s = time.perf_counter() - wall_s
            work.cpu_share = (time.process_time() - cpu_s) / spent_s if spent_s > 0 else 0.0


def _begun(items: Iterable[T]) -> Iterator[T]:
    """The same, with the first one made already: a shuffle of a whole file, or long prefixes, take their time."""
    rest = iter(items)
    return chain(list(islice(rest, 1)), rest)


async def warm_up(order: Order, target: Target, tokens_per_word: float, examples: Sequence[Example]) -> None:
    """The order's warm-up requests, with other prompts than the measured ones; what becomes of them is not kept."""
    many = order.warmup_requests
    if not many:
        return
    shapes = islice(order.workload.shapes(-1 - order.seed, examples, tokens_per_word), many)
    clock = WallClock()
    async with connect(order, target, clock) as remote:
        load = Load(remote, clock, lambda _outcome: None, [])
        await load.closed_loop(shapes, min(many, order.concurrency or many), "warm-up")


@contextlib.asynccontextmanager
async def connect(order: Order, target: Target, clock: Clock) -> AsyncIterator[Remote]:
    connector = aiohttp.TCPConnector(limit=0)  # the load decides how many are in flight, not the pool
    async with aiohttp.ClientSession(connector=connector, headers=order.headers) as http:
        remote = Remote(http, target.url, order.timeout_s, clock)
        remote.always_send({**order.fields, **target.fields})
        yield remote


def _allow_many_sockets() -> None:
    """An open loop has as many connections as the server is behind."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
