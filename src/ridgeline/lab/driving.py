"""Driving: requests through an engine of this process, to their ends. Knows no text, no HTTP and no measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ridgeline.core.logprobs import LogprobCollector
from ridgeline.core.types import End, NewRequest, Sampling, Scores, StepRecord, Timings
from ridgeline.engine.engine import NullSink

if TYPE_CHECKING:
    from ridgeline.engine.engine import Engine


@dataclass(slots=True)
class Generated:
    """What became of one request. timings: None until it ended."""

    scores: LogprobCollector
    token_ids: list[int] = field(default_factory=list)
    timings: Timings | None = None


class StepsKept(NullSink):
    """A sink that keeps every step, for whoever counts them afterwards."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def step(self, record: StepRecord) -> None:
        self.records.append(record)


def drive(engine: Engine, prompts: Sequence[Sequence[int]], new: Sequence[int], sampling: Sampling) -> list[Generated]:
    """All prompts at once, `new[i]` tokens for the i-th at most; one Generated a prompt, in order.

    The engine must be idle and is left so, whatever happens. Raises BadRequest for a prompt that can never run.
    """
    made = [Generated(LogprobCollector(sampling.logprobs, sampling.prompt_logprobs)) for _ in prompts]
    try:
        for key, (prompt, count) in enumerate(zip(prompts, new, strict=True)):
            request = NewRequest(key, np.array(prompt, np.int32), count, sampling, time.perf_counter_ns())
            engine.submit(request)
        left = len(made)
        while left:
            left -= _step(engine, made)
    finally:
        engine.discard()
    return made


def _step(engine: Engine, made: list[Generated]) -> int:
    """How many requests ended."""
    events = engine.step()
    if events is None:  # a policy's window is open, and nobody else will come: only time closes it
        wake_ns = engine.wake_ns
        assert wake_ns is not None, "requests are waiting and nothing will ever wake them"
        time.sleep(max(0, wake_ns - time.perf_counter_ns()) / 1e9)
        return 0
    _take_scores(events.scores, made)
    start = 0
    for key, count in zip(events.keys.tolist(), events.counts.tolist(), strict=True):
        made[key].token_ids += events.tokens[start : start + count].tolist()
        start += count
    _take_ends(events.ends, made)
    return len(events.ends)


def _take_scores(scores: Sequence[Scores], made: list[Generated]) -> None:
    for one in scores:
        made[one.owner].scores.add(one)


def _take_ends(ends: Sequence[End], made: list[Generated]) -> None:
    for end in ends:
        made[end.key].timings = end.timings
