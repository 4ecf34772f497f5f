"""Engine: plan, launch, collect, commit. Knows the order of the four verbs; knows no request, tensor, socket or thread.

One loop serves every depth: with `depth` launches in flight, 1 is sequential and 2 hides the host behind the device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from ridgeline.core.types import End, Events, NewRequest, Output, Plan, StepRecord, Timings
from ridgeline.engine.messages import Counters
from ridgeline.engine.meter import Meter
from ridgeline.engine.profiling import NoProfiler, Profiler
from ridgeline.scheduler.scheduler import Scheduler

Clock = Callable[[], int]
Life = tuple[int, int, int, int]
"""key, at_ns, serial, what: a row of core.flight.Lives."""


class Runner(Protocol):
    """Carries out one plan on a device. Launches run in the order they were made; collect takes them in that order."""

    def launch(self, plan: Plan) -> Any: ...

    def collect(self, launched: Any) -> Output: ...


class Sink(Protocol):
    """Sees every step, after the fact. It must be cheap: it runs between steps."""

    def step(self, record: StepRecord) -> None: ...

    def lives(self, lives: Sequence[Life]) -> None:
        """What became of requests since the last time."""
        ...


class Upkeep(Protocol):
    """What a runner does for itself when no launch waits."""

    def between(self) -> None:
        """Before a step: make ready what the last launches lacked."""
        ...

    def idle(self) -> bool:
        """Nothing is to do: make ready a part of what launches may need. False: all is."""
        ...


class NoUpkeep:
    def between(self) -> None:
        """Nothing is lacking."""

    def idle(self) -> bool:
        return False


class NullSink:
    def step(self, record: StepRecord) -> None:
        """Nobody watches."""

    def lives(self, lives: Sequence[Life]) -> None:
        """Nobody watches."""


class Engine:
    """profiler: what the loop asks when somebody wants a trace. upkeep: what is done between steps. meter: adds
    up what they take."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        clock: Clock,
        sink: Sink,
        depth: int = 1,
        profiler: Profiler | None = None,
        upkeep: Upkeep | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.scheduler, self.runner, self.clock, self.sink, self.depth = scheduler, runner, clock, sink, depth
        self.profiler, self.upkeep = profiler or NoProfiler(), upkeep or NoUpkeep()
        self.meter = meter or Meter()
        self._flying: deque[tuple[Plan, int, Any]] = deque()

    def submit(self, request: NewRequest) -> End | None:
        """Queue a request; an End if there was nothing left to do. Raises BadRequest for one that can never run."""
        return self.scheduler.submit(request)

    def abort(self, key: int) -> End | None:
        return self.scheduler.abort(key, self.clock())

    def step(self) -> Events | None:
        """One turn of the loop. None: nothing to do until a message comes or `wake_ns` passes."""
        self.upkeep.between()
        while len(self._flying) < self.depth and (plan := self.scheduler.plan(self.clock())) is not None:
            self._tell()  # before a launch that may be the last
            self._flying.append((plan, self.clock(), self.runner.launch(plan)))
        if not self._flying:
            self._tell()
            return None
        plan, launched_ns, launched = self._flying.popleft()
        output = self.runner.collect(launched)
        now = self.clock()
        events = self.scheduler.commit(output, now, launched_ns)
        self.meter.step(plan, output, launched_ns, now)
        self.sink.step(self._record(plan, output, launched_ns, now))
        self._tell()
        return events

    def idle(self) -> bool:
        """After a step that had nothing to do: whether something was made ready meanwhile, and more may be."""
        return self.wake_ns is None and self.upkeep.idle()

    def discard(self) -> None:
        """End every request and forget what is in flight, wherever an exception or an interrupt came from."""
        self._flying.clear()
        self.scheduler.discard()

    @property
    def wake_ns(self) -> int | None:
        return self.scheduler.wake_ns

    def counters(self) -> Counters:
        s = self.scheduler
        return Counters(
            running=s.num_running,
            waiting=s.num_waiting,
            kv_blocks=s.blocks_in_use,
            preemptions=s.preemptions,
            dropped_tokens=s.dropped_tokens,
            steps=s.steps,
            positions=s.positions,
            padding=s.padding,
            prefix_queried=s.prefix_queried,
            prefix_hit=s.prefix_hit,
            device_ns=self.meter.device_ns,
            moved_bytes=self.meter.moved_bytes,
        )

    def timings(self, keys: Iterable[int]) -> dict[int, Timings]:
        """Of requests that are not over, as far as they are."""
        return self.scheduler.timings(keys, self.clock())

    def _tell(self) -> None:
        if lives := self.scheduler.take_lives():
            self.sink.lives(lives)

    def _record(self, plan: Plan, output: Output, launched_ns: int, now: int) -> StepRecord:
        flight = self.scheduler.committed
        assert flight is not None
        return StepRecord(
            plan.serial,
            launched_ns,
            now,
            len(plan.rows),
            int(output.counts.sum()),
            output.positions,
            output.padding,
            self.scheduler.num_waiting,
            self.scheduler.blocks_in_use,
            plan.horizon,
            flight.stall,
            flight.keys,
            plan.starts,
            plan.counts,
            output.counts,
            flight.phases,
        )
