"""Places: every operation is found under its name, wrapping changes no token, and what is taken off leaves nothing."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ridgeline.core.cost import REGIONS, Formats, StepShape, step_costs
from ridgeline.core.errors import ConfigError
from ridgeline.device.trace import NvtxRanges, Trace, TraceRanges
from ridgeline.runner.places import HOST, REGION_OF, Operation, ranged, wrap_places
from ridgeline.runner.recorder import Recorder
from tests.tensors import TINY, decode, lively, make_runner, random_prompts

MODEL = lively(TINY, seed=4)
PROMPTS = random_prompts(np.random.default_rng(2), 3, 20, TINY.vocab)
NEW = 5


def test_every_predicted_operation_is_called_under_its_name_and_region() -> None:
    runner, calls = make_runner(MODEL), Counter[tuple[str, str]]()

    def count(place: str, region: str, operation: Operation) -> Operation:
        def run(*given: Any, **named: Any) -> Any:
            calls[region, place] += 1
            return operation(*given, **named)

        return run

    bare = decode(make_runner(MODEL), PROMPTS, NEW)
    undo = wrap_places(runner, count)
    assert decode(runner, PROMPTS, NEW) == bare
    predicted = Counter((c.region, c.name) for c in step_costs(TINY, StepShape.decode(3, 9), Formats(32, 32, 32, "x")))
    launches = calls["embedding", "embedding"]
    assert launches >= NEW
    predicted["attention", "attention_plan"] = 1
    assert calls == Counter({place: launches * count for place, count in predicted.items()})
    assert set(REGION_OF.values()) == set(REGIONS)
    undo()
    before = calls.copy()
    assert decode(runner, PROMPTS, NEW) == bare
    assert calls == before


def test_ranges_lie_inside_each_other_and_come_off_in_the_reverse_order() -> None:
    runner, seen = make_runner(MODEL), list[str]()

    class Heard:
        def __init__(self, who: str) -> None:
            self.who = who

        def range(self, name: str) -> AbstractContextManager[None]:
            seen.append(f"{self.who} {name}")
            return nullcontext()

    outer = wrap_places(runner, ranged(Heard("inner")))
    inner = wrap_places(runner, ranged(Heard("outer")))
    decode(runner, PROMPTS[:1], 1)
    assert seen[:4] == ["outer attention_plan", "inner attention_plan", "outer embedding", "inner embedding"]
    inner()
    seen.clear()
    decode(runner, PROMPTS[:1], 1)
    assert seen[:3] == ["inner attention_plan", "inner embedding", "inner norm_1"]
    outer()
    seen.clear()
    decode(runner, PROMPTS[:1], 1)
    assert seen == []


def test_a_trace_has_the_places_as_ranges(tmp_path: Path) -> None:
    runner = make_runner(MODEL)
    undo = wrap_places(runner, ranged(TraceRanges()))
    trace = Trace(shapes=True)
    trace.start()
    decode(runner, PROMPTS, NEW)
    trace.stop()
    undo()
    ranges = trace.ranges()
    assert set(ranges) == set(REGION_OF) - {HOST}
    assert ranges["qkv"].calls == TINY.layers * ranges["embedding"].calls
    assert all(found.host_ns > 0 for found in ranges.values())
    assert any(row.name.startswith("aten::") and row.calls for row in trace.operations())
    trace.write(tmp_path / "trace.json.gz")
    with gzip.open(tmp_path / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    named = Counter(event["name"] for event in events if event.get("cat") == "user_annotation")
    assert named == Counter({name: found.calls for name, found in ranges.items()})
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json.gz"]


def test_a_recorder_leaves_the_runner_as_it_was_and_can_begin_again(tmp_path: Path) -> None:
    runner = make_runner(MODEL)
    before = (runner.eager.attend, runner.sampler, MODEL.head)
    recorder = Recorder(runner)
    recorder.start()
    assert runner.sampler is not before[1]
    recorder.drop()
    assert (runner.eager.attend, runner.sampler, MODEL.head) == before
    recorder.start(shapes=True)
    decode(runner, PROMPTS, NEW)
    places = recorder.stop(tmp_path / "trace.json.gz")
    assert [place.place for place in places] == [place for place in REGION_OF if place != HOST]
    assert all(REGION_OF[place.place] == place.region and place.host_ns > 0 for place in places)
    assert (runner.eager.attend, runner.sampler, MODEL.head) == before
    recorder.start()
    with pytest.raises(OSError, match="No such file"):
        recorder.stop(tmp_path / "nowhere" / "trace.json.gz")
    assert (runner.eager.attend, runner.sampler, MODEL.head) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has NVTX")
def test_without_nvtx_a_sentence_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="ridgeline profile"):
        NvtxRanges()
