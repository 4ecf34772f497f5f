"""Requests of every kind, for tests that nothing around a request changes its tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ridgeline.core.types import Sampling
from tests.tensors import TINY, Way, decode, lively, make_runner, random_prompts

MODEL = lively(TINY, seed=6)
NEW = 18
PROMPTS = random_prompts(np.random.default_rng(3), 8, 20, TINY.vocab)
_FREE = [
    Sampling(),
    Sampling(temperature=0.9, seed=1, repetition_penalty=1.3),
    Sampling(temperature=1.2, min_p=0.1, seed=2, logit_bias=((5, 4.0), (6, -100.0), (7, 2.5))),
    Sampling(repetition_penalty=1.5, presence_penalty=0.4, frequency_penalty=0.6),
    Sampling(temperature=1.0, top_p=0.8, seed=3, presence_penalty=-1.0, frequency_penalty=1.5),
    Sampling(logit_bias=((11, 3.0),), frequency_penalty=2.0),
    Sampling(temperature=0.7, top_k=9, seed=4),
    Sampling(temperature=1.5, seed=5, frequency_penalty=0.5, min_tokens=6, stop_ids=tuple(range(0, 60, 2))),
]
FREE = [decode(make_runner(MODEL), [p], NEW, [s])[0] for p, s in zip(PROMPTS, _FREE, strict=True)]
# Every second request meets a token that ends it, somewhere in the middle of a horizon.
ASKED = [
    replace(s, stop_ids=(made[3 + n],)) if n % 2 == 0 else s
    for n, (s, made) in enumerate(zip(_FREE, FREE, strict=True))
]
SOLO = [decode(make_runner(MODEL), [p], NEW, [s])[0] for p, s in zip(PROMPTS, ASKED, strict=True)]
WAYS = [
    Way(horizon=2),
    Way(horizon=8),
    Way(depth=2),
    Way(depth=3, chunk=5),
    Way(chunk=3, horizon=5),
    Way(chunk=7, horizon=4, depth=2),
]
