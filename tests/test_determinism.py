"""Under --determinism batch a request's tokens and log-probabilities have the same bits whatever else happens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridgeline import LLM, SamplingParams
from ridgeline.core.config import WHOLE_PROMPTS
from ridgeline.core.errors import ConfigError
from tests.tiny_gpt2 import write_tiny_gpt2

VOCAB, POSITIONS, LAYERS, D_MODEL = 384, 640, 2, 32
BLOCK, SHORT = 4, 160
SCARCE = (SHORT + 8 * BLOCK) * LAYERS * 2 * D_MODEL  # values of a cache: of the longest short sequence and little more
OUTGROWING, OUTGROWN = 60, 40
VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""float16 is what no CPU multiplies here, so its weights are widened."""

Asked = tuple[list[int], SamplingParams]
Answer = tuple[list[int], bytes, bytes]
"""Tokens, and the bits of all log-probabilities of output and prompt."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return write_tiny_gpt2(folder, seed=5, vocab=VOCAB, positions=POSITIONS, layers=LAYERS, d_model=D_MODEL)


def engine(folder: Path, **options: Any) -> LLM:
    base = {"dtype": "float32", "determinism": "batch", "kv_memory": "64MiB"}
    return LLM(str(folder), cache=folder.parent, device="cpu", **(base | options))


def some_requests(rng: random.Random) -> list[Asked]:
    """The first two fit a scarce cache together and outgrow it; the last two are longer than a split of attention; some
    of the others share a beginning; most draw their tokens."""
    shared = [rng.randrange(VOCAB) for _ in range(40)]
    lengths = [OUTGROWING, OUTGROWING, *(rng.randrange(1, 70) for _ in range(7)), 240, 520]
    made: list[Asked] = []
    for index, length in enumerate(lengths):
        prompt = (shared if index > 1 and rng.random() < 0.5 else []) + [rng.randrange(VOCAB) for _ in range(length)]
        how = SamplingParams(
            max_tokens=rng.randrange(3, 36) if index > 1 else OUTGROWN,
            temperature=rng.choice((0, 0.8, 1.3)), seed=index, ignore_eos=True,
            top_p=rng.choice((1.0, 0.9)), top_k=rng.choice((0, 20)), frequency_penalty=rng.choice((0.0, 0.4)),
            logprobs=rng.choice((0, 3)), prompt_logprobs=rng.choice((None, None, 2)),
        )  # fmt: skip
        made.append((prompt, how))
    return made


def some_options(rng: random.Random) -> dict[str, Any]:
    batching = rng.choice(("one", "static", "dynamic", "prefill-first", "continuous", "continuous", "continuous"))
    options: dict[str, Any] = {
        "batching": batching,
        "packing": rng.choice(("padded", "ragged")),
        "prefix_cache": rng.choice((True, False)),
        "launches_in_flight": rng.choice((1, 2, 3)),
        "max_steps_per_visit": rng.choice((1, 4)),
        "block_size": BLOCK,
        "max_batch_size": rng.choice((2, 3, 5)),
        "max_num_seqs": rng.choice((5, 11)),
        "batch_window_ms": 0.1,
    }
    if batching not in WHOLE_PROMPTS and rng.random() < 0.7:
        options |= {"chunked_prefill": True, "max_num_batched_tokens": rng.choice((11, 31, 64, 300))}
    return options


def serve(llm: LLM, asked: Sequence[Asked]) -> list[Answer]:
    made = llm.generate([prompt for prompt, _ in asked], [how for _, how in asked])
    return [(one.token_ids, bits(one.logprobs), bits(one.prompt_logprobs)) for one in made]


def bits(scores: Sequence[Any] | None) -> bytes:
    rows = [[one.logprob, *(value for _, value in one.top)] for one in scores or () if one is not None]
    return np.array([value for row in rows for value in row], np.float64).tobytes()


CASES: tuple[dict[str, Any], ...] = (
    {"dtype": "float32", "attention": "auto"},
    {"dtype": "float32", "attention": "by-row"},
    {"dtype": "bfloat16", "attention": "auto", "quantize": "int8"},
    {"dtype": "bfloat16", "attention": "auto", "graphs": "eager"},
    {"dtype": "float16", "attention": "by-row"},
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: ", ".join(case.values()))
def test_the_same_bits_whatever_else_happens(folder: Path, case: dict[str, Any]) -> None:
    """auto is native attention where it can be built."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    asked = some_requests(rng)
    alone = engine(folder, **case, batching="one", prefix_cache=False)
    expected = [serve(alone, [one])[0] for one in asked]
    everybody, short = range(len(asked)), range(len(asked) - 2)
    kv_memory = str(SCARCE * VALUE_BYTES[case["dtype"]])
    scarce = {"kv_memory": kv_memory, "max_model_len": SHORT, "batching": "continuous", "max_num_seqs": 11}
    preempted = hits = 0
    for forced, those in (({}, everybody), (scarce, short), ({"prefix_cache": True}, everybody)):
        options = some_options(rng) | forced | case
        llm = engine(folder, **options)
        for some in ([0, 1], rng.sample(those, rng.randrange(1, len(those))), those):
            found = serve(llm, [asked[index] for index in some])
            for index, answer in zip(some, found, strict=True):
                assert answer == expected[index], (seed, options, index)
        preempted += llm.counters.preemptions
        hits += llm.counters.prefix_hit
    assert preempted, "nobody gave way, which proves little"
    assert hits


def test_a_restart_and_a_second_engine_give_the_same_bits(folder: Path) -> None:
    """What run promises, off keeps too: the same requests in the same order."""
    asked = some_requests(random.Random(7))
    for level in ("off", "run", "batch"):
        first, second = (serve(engine(folder, determinism=level), asked) for _ in range(2))
        assert first == second, level


def test_attention_that_depends_on_the_batch_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"--determinism batch: --attention reference .*leave one of the two out"):
        engine(folder, attention="reference")
    for level in ("off", "run"):
        engine(folder, attention="reference", determinism=level)
