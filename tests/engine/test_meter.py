"""What steps had to stream is what the cost model says of each of them, whatever mixes and joins."""

from __future__ import annotations

import random

import numpy as np

from ridgeline.core.cost import Formats, Row, StepBytes, StepShape, step_costs, total
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.core.types import NewRequest, Output, Plan, Sampling
from ridgeline.engine.meter import Meter
from tests.engine.engines import MAX_LEN, engine_with, scripted_runner

SPEC = GPT2_SHAPES["gpt2"]
FORMATS = Formats(16, 16, 16, "bfloat16")


def streamed(rows: tuple[Row, ...]) -> int:
    return total(step_costs(SPEC, StepShape(rows, wanted=len(rows)), FORMATS)).streamed_bytes


def test_bytes_are_linear_in_what_a_step_holds() -> None:
    bytes = StepBytes.of_model(SPEC, FORMATS)
    assert bytes.context == SPEC.kv_bytes_per_token(2)
    for rows in ((Row(1, 9),) * 3, (Row(100, 100), Row(1, 700)), (Row(64, 128),)):
        positions, contexts = sum(row.queries for row in rows), sum(row.context for row in rows)
        assert bytes.of(1, positions, contexts) == streamed(rows)


class Recounting(Meter):
    """Beside its own sum that of the cost model, step by step."""

    counted = 0

    def step(self, plan: Plan, output: Output, launched_ns: int, now_ns: int) -> None:
        super().step(plan, output, launched_ns, now_ns)
        pairs = zip(plan.starts.tolist(), plan.counts.tolist(), strict=True)
        self.counted += streamed(tuple(Row(count, start + count) for start, count in pairs))


def test_a_meter_counts_what_the_cost_model_does() -> None:
    drawn = random.Random(3)
    engine = engine_with(scripted_runner())
    meter = engine.meter = Recounting(StepBytes.of_model(SPEC, FORMATS))
    for key in range(40):
        prompt = np.arange(drawn.randrange(1, MAX_LEN // 2), dtype=np.int32) % 13
        engine.submit(NewRequest(key, prompt, drawn.randrange(1, MAX_LEN // 3), Sampling(), engine.clock()))
        for _ in range(drawn.randrange(4)):
            engine.step()
    while engine.step() is not None:
        pass
    assert meter.counted > 0
    assert abs(meter.moved_bytes / meter.counted - 1) < 1e-9, "seed 3"
    assert engine.counters().moved_bytes == meter.moved_bytes
    assert engine.counters().device_ns > 0


def test_a_launch_of_several_turns_reads_the_weights_in_each() -> None:
    meter = Meter(StepBytes(turn=1000, position=10, context=1))
    rows = np.array([0, 1])
    plan = Plan(
        1, rows, np.array([5, 9]), np.ones(2, np.int64), np.full(2, 3), (), (), (rows, rows, rows), 2, horizon=3
    )
    output = Output(1, np.full(2, 3), np.zeros((2, 3), np.int32), np.zeros(2, np.bool_), positions=6, padding=0)
    meter.step(plan, output, 100, 150)
    assert meter.moved_bytes == 3 * 1000 + 6 * 10 + (6 + 7 + 8) + (10 + 11 + 12)
    meter.step(plan, output, 120, 170)
    assert meter.device_ns == 50 + 20, "launched while the one before ran"
