"""An hour of traffic leaves the engine's memory as it was: what is recorded and accounted is bounded."""

from __future__ import annotations

import gc
import random
import tracemalloc

import numpy as np

from ridgeline.core.types import NewRequest, Output, Plan, Sampling
from ridgeline.engine.engine import Engine
from ridgeline.engine.recorder import FlightRecorder
from ridgeline.engine.ring import Ring
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.prefix import HashPrefix
from ridgeline.scheduler.policies import Continuous
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits

STEP_NS, HOUR_NS = 1_000_000_000, 3600 * 10**9
SLOTS, MAX_LEN = 8, 64


class Device:
    """Makes what was promised, at once; a step takes a second of the clock."""

    now = 0

    def launch(self, plan: Plan) -> Plan:
        return plan

    def collect(self, plan: Plan) -> Output:
        self.now += STEP_NS
        rows = len(plan.rows)
        return Output(plan.serial, plan.promise, np.zeros((rows, 1), np.int32), np.zeros(rows, np.bool_), rows, 0)


def test_memory_is_flat_over_an_hour() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng, device = random.Random(seed), Device()
    ledger = Ledger(slots=SLOTS, max_len=MAX_LEN, num_blocks=60, block_size=4, prefix=HashPrefix())
    scheduler = Scheduler(Continuous(), ledger, SchedulerLimits(SLOTS, MAX_LEN, 64, spare=0))
    recorder = FlightRecorder(Ring.create(steps=256, rows=2048, lives=512))
    engine = Engine(scheduler, device, lambda: device.now, recorder)
    taken, keys, next_look_ns = list[int](), 0, HOUR_NS // 6
    tracemalloc.start()
    try:
        while device.now < HOUR_NS:
            while scheduler.num_waiting < 2:
                prompt = np.array([rng.randrange(9) for _ in range(rng.randint(1, 30))], np.int32)
                engine.submit(NewRequest(keys, prompt, rng.randint(1, 30), Sampling(), device.now))
                keys += 1
            if rng.random() < 0.02:
                engine.abort(keys - rng.randint(1, 12))
            engine.step()
            if device.now >= next_look_ns:
                gc.collect()
                taken.append(tracemalloc.get_traced_memory()[0])
                next_look_ns += HOUR_NS // 6
    finally:
        tracemalloc.stop()
    assert keys > 1000, "there was traffic"
    assert scheduler.preemptions > 0
    assert max(taken[1:]) - taken[0] < 2**15, f"it grew: {taken}"
    recorded = recorder.newest(10**6)
    assert recorded is not None
    assert len(recorded[0]) <= 256
