"""Every pair of switch values either runs and gives the naive tokens, or is refused with a sentence; no third thing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ridgeline.build import make_scheduler
from ridgeline.core.config import BATCH_DEPENDENT, WHOLE_PROMPTS, Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.core.types import NewRequest, Sampling
from ridgeline.engine.engine import Engine, NullSink
from ridgeline.menu import MENU, chosen
from ridgeline.sizing import engine_limits
from tests.scripted import ScriptedRunner, naive
from tests.switches import IMPOSSIBLE, SWITCHES, covering, pairs

MAX_LEN, NUM_TOKENS = 40, 160


class Clock:
    now = 0

    def __call__(self) -> int:
        self.now += 1
        return self.now


def generate(config: Config, requests: list[NewRequest]) -> dict[int, list[int]]:
    """All tokens, from a whole logic tower on a device that checks what it is told."""
    limits = engine_limits(config, GPT2_SHAPES["gpt2"], step_tokens=16)
    size = config.limits.block_size or 16
    scheduler = make_scheduler(config, limits, NUM_TOKENS // size, size)
    runner = ScriptedRunner(slots=limits.slots, max_len=MAX_LEN, num_blocks=NUM_TOKENS // size, block_size=size)
    clock = Clock()
    engine = Engine(scheduler, runner, clock, NullSink(), config.batching.launches_in_flight)
    tokens: dict[int, list[int]] = {request.key: [] for request in requests}
    for request in requests:
        engine.submit(request)
    open_ = len(requests)
    while open_:
        events = engine.step()
        if events is None:
            assert engine.wake_ns is not None, "stuck"
            clock.now = max(clock.now, engine.wake_ns)
            continue
        at = 0
        for key, count in zip(events.keys.tolist(), events.counts.tolist(), strict=True):
            tokens[key] += events.tokens[at : at + count].tolist()
            at += count
        open_ -= len(events.ends)
    while engine.step() is not None:
        pass
    assert scheduler.blocks_in_use == 0
    hits = engine.counters().prefix_hit
    assert bool(hits) == (config.batching.kv_cache == "paged" and config.batching.prefix_cache is not False)
    return tokens


def requests() -> list[NewRequest]:
    made = []
    for key in range(8):
        prompt = [i % 7 for i in range(18)] + [key] * (1 + key % 4)
        sampling = Sampling(temperature=key % 2, seed=key, stop_ids=(3,) if key % 3 else ())
        made.append(NewRequest(key, np.array(prompt, np.int32), 6 + key, sampling, arrival_ns=key))
    return made


def outcome(options: dict[str, Any]) -> str:
    """`ran`, or the sentence that refused it."""
    try:
        config = Config.of(max_model_len=MAX_LEN, max_num_seqs=8, max_batch_size=3, batch_window_ms=0.001, **options)
    except ConfigError as error:
        return str(error)
    for request, tokens in zip(requests(), generate(config, requests()).values(), strict=True):
        assert tokens == naive(request.prompt_ids.tolist(), request.max_tokens, request.sampling), options
    return "ran"


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: ", ".join(f"{k}={v}" for k, v in sorted(pair)))
def test_a_pair_runs_or_is_refused_with_a_sentence(pair: frozenset[tuple[str, Any]]) -> None:
    said = outcome(dict(pair))
    assert (said != "ran") == (pair in IMPOSSIBLE), said
    if said != "ran":
        assert all("--" + name.replace("_", "-") in said for name, _ in pair), "it names both"
        assert "leave" in said, "and says what to do"


def test_rows_that_cover_all_pairs_run() -> None:
    rows = list(covering())
    seen = {pair for row in rows for pair in pairs() if pair <= set(row.items())}
    assert seen == set(pairs()) - IMPOSSIBLE
    assert all(row.keys() == SWITCHES.keys() for row in rows)
    assert [outcome(row) for row in rows] == ["ran"] * len(rows)


def test_the_configuration_knows_which_policies_compute_prompts_whole() -> None:
    assert {name for name in MENU["batching"] if not chosen("batching", name).divisible} == set(WHOLE_PROMPTS)


def test_the_configuration_knows_which_attention_depends_on_the_batch() -> None:
    assert {name for name in MENU["attention"] if not chosen("attention", name).row_invariant} == set(BATCH_DEPENDENT)
