"""The real scheduler drives the real runner: the same tokens and log-probabilities at any depth and horizon."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ridgeline.core.logprobs import LogprobCollector
from ridgeline.core.types import NewRequest
from ridgeline.engine.engine import Engine, NullSink
from ridgeline.kv.ledger import Ledger
from ridgeline.kv.prefix import NoPrefix
from ridgeline.scheduler.policies import Continuous
from ridgeline.scheduler.scheduler import Scheduler, SchedulerLimits
from tests.runner.asked import ASKED, MODEL, NEW, PROMPTS, SOLO
from tests.tensors import all_logits, make_runner

SLOTS, BLOCK = 5, 4


def engine(depth: int, horizon: int, num_blocks: int, budget: int) -> Engine:
    max_len = MODEL.spec.max_positions
    ledger = Ledger(slots=SLOTS, max_len=max_len, num_blocks=num_blocks, block_size=BLOCK, prefix=NoPrefix())
    limits = SchedulerLimits(SLOTS, max_len, budget, horizon=horizon)
    runner = make_runner(MODEL, slots=SLOTS, block_size=BLOCK, num_blocks=num_blocks)
    return Engine(Scheduler(Continuous(), ledger, limits), runner, lambda: 0, NullSink(), depth)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize(("num_blocks", "budget"), [(80, 200), (14, 200), (14, 7)])
def test_tokens_and_scores_are_those_of_a_request_alone(depth: int, horizon: int, num_blocks: int, budget: int) -> None:
    running = engine(depth, horizon, num_blocks, budget)
    tokens: dict[int, list[int]] = {key: [] for key in range(len(PROMPTS))}
    collectors = {key: LogprobCollector(2, 1) for key in tokens}
    for key, (prompt, asked) in enumerate(zip(PROMPTS, ASKED, strict=True)):
        sampling = replace(asked, logprobs=2, prompt_logprobs=1)
        running.submit(NewRequest(key, np.array(prompt, np.int32), NEW, sampling, 0))
    ended = 0
    while ended < len(PROMPTS):
        events = running.step()
        assert events is not None
        for scores in events.scores:
            collectors[scores.owner].add(scores)
        parts = np.split(events.tokens, events.counts.cumsum())[:-1]
        for key, part in zip(events.keys.tolist(), parts, strict=True):
            tokens[key] += part.tolist()
        ended += len(events.ends)
    assert list(tokens.values()) == SOLO
    assert running.scheduler.preemptions or num_blocks > 14
    for key, prompt in enumerate(PROMPTS):
        table = torch.log_softmax(all_logits(MODEL, prompt + SOLO[key]), -1)
        found = collectors[key].prompt + collectors[key].output
        assert [one.token_id for one in found] == (prompt + SOLO[key])[1:]
        expected = table[torch.arange(len(found)), torch.tensor([one.token_id for one in found])]
        assert [one.logprob for one in found] == pytest.approx(expected.tolist(), abs=1e-4)
