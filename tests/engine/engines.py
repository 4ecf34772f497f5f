"""Engines without tensors that a new process can import by name."""

from __future__ import annotations

import os
import time

from msgspec import structs

from ridgeline.core.errors import ConfigError
from ridgeline.core.types import Output, Plan
from ridgeline.engine.channel import Report
from ridgeline.engine.engine import Engine, NullSink, Sink
from ridgeline.engine.messages import EngineInfo
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.prefix import NoPrefix
from ridgeline.scheduler.policies import Continuous, Policy
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits
from tests.scripted import Launched, ScriptedRunner

SLOTS, MAX_LEN, NUM_BLOCKS, BLOCK_SIZE = 4, 64, 64, 4

INFO = EngineInfo(
    model="scripted",
    dtype="none",
    device="none",
    max_model_len=MAX_LEN,
    vocab=13,
    block_size=BLOCK_SIZE,
    num_blocks=NUM_BLOCKS,
    kv_block_bytes=1,
    weight_bytes=0,
    memory_plan="none",
    batching="continuous",
    notes=(),
    start_ms={},
)


def engine_with(
    runner: ScriptedRunner, policy: Policy | None = None, depth: int = 1, sink: Sink | None = None
) -> Engine:
    ledger = Ledger(
        slots=SLOTS, max_len=MAX_LEN, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE, prefix=NoPrefix()
    )  # fmt: skip
    limits = SchedulerLimits(SLOTS, MAX_LEN, SLOTS * MAX_LEN)
    return Engine(
        Scheduler(policy or Continuous(), ledger, limits), runner, time.perf_counter_ns, sink or NullSink(), depth
    )


def scripted_runner() -> ScriptedRunner:
    return ScriptedRunner(slots=SLOTS, max_len=MAX_LEN, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE)


def working(report: Report) -> tuple[Engine, EngineInfo]:
    report("loading weights", 3, 4)
    return engine_with(scripted_runner()), INFO


def recorded(sink: Sink, report: Report) -> tuple[Engine, EngineInfo]:
    return engine_with(scripted_runner(), sink=sink), INFO


def recorded_falling(sink: Sink, report: Report) -> tuple[Engine, EngineInfo]:
    runner = Falling(slots=SLOTS, max_len=MAX_LEN, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE)
    return engine_with(runner, sink=sink), INFO


_PREPARED: list[str] = []


def prepare(name: str) -> None:
    """In a process that does not know yet what it is to build."""
    _PREPARED.append(name)


def unprepared() -> None:
    raise ImportError("a library that is not there")


def stuck_preparing(_name: str) -> None:
    time.sleep(3600)


def named_as_prepared(report: Report) -> tuple[Engine, EngineInfo]:
    return engine_with(scripted_runner()), structs.replace(INFO, model=_PREPARED[0])


def misconfigured(report: Report) -> tuple[Engine, EngineInfo]:
    raise ConfigError("--block-size 3: not on this hardware")


def defective(report: Report) -> tuple[Engine, EngineInfo]:
    raise ZeroDivisionError("a defect")


class Falling(ScriptedRunner):
    """Ends its process at the third launch, as a driver's crash would."""

    launches = 0

    def launch(self, plan: Plan) -> Launched:
        self.launches += 1
        if self.launches == 3:
            os._exit(42)
        return super().launch(plan)


class Raising(ScriptedRunner):
    """Raises at the third collect."""

    collects = 0

    def collect(self, launched: Launched) -> Output:
        self.collects += 1
        if self.collects == 3:
            raise RuntimeError("out of memory")
        return super().collect(launched)


def falling(report: Report) -> tuple[Engine, EngineInfo]:
    runner = Falling(slots=SLOTS, max_len=MAX_LEN, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE)
    return engine_with(runner), INFO


def raising(report: Report) -> tuple[Engine, EngineInfo]:
    runner = Raising(slots=SLOTS, max_len=MAX_LEN, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE)
    return engine_with(runner), INFO


class Slow(ScriptedRunner):
    """Steps take a twentieth of a second."""

    def launch(self, plan: Plan) -> Launched:
        time.sleep(0.05)
        return super().launch(plan)


def slow(report: Report) -> tuple[Engine, EngineInfo]:
    runner = Slow(slots=SLOTS, max_len=MAX_LEN, num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE)
    return engine_with(runner), INFO


def stuck(report: Report) -> tuple[Engine, EngineInfo]:
    """Loads for ever."""
    report("loading weights", 0, 4)
    time.sleep(3600)
    raise AssertionError("unreachable")
