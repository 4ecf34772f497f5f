"""Log-likelihoods as lm-evaluation-harness asks for them, over HTTP and under load, are transformers' in float32.

Its `local-completions` sends lists of id lists with echo, logprobs 1 and one token (some versions none), and reads
token_logprobs and top_logprobs of the continuation: the sum, and whether each token is the likeliest, by comparing the
token's number with the greatest one.
"""

from __future__ import annotations

import concurrent.futures
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from tests.test_online import served
from tests.tiny_gpt2 import write_tiny_gpt2

TOLERANCE = 1e-4
VOCAB, BATCHES, BATCH, CLIENTS, SEED = 384, 40, 4, 8, 7
Ids = list[int]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gpt2(tmp_path_factory.mktemp("model") / "tiny", seed=4, layers=3, heads=4, vocab=VOCAB)


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    arguments = ("--model", str(folder), "--dtype", "float32", "--device", "cpu", "--kv-memory", "16MiB")
    with served(
        *arguments, "--max-num-seqs", "32", "--max-num-batched-tokens", "64", "--served-model-name", "tiny"
    ) as server:
        server.wait_for("ready after")
        yield server.url


@pytest.fixture(scope="module")
def oracle(folder: Path) -> GPT2LMHeadModel:
    model = GPT2LMHeadModel.from_pretrained(str(folder), dtype=torch.float32, attn_implementation="eager")
    model.eval()
    return model


def complete(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def asked(prompts: list[Ids], max_tokens: int) -> dict[str, Any]:
    return {
        "model": "tiny", "prompt": prompts, "max_tokens": max_tokens, "temperature": 0, "logprobs": 1, "echo": True,
        "seed": 1234,
    }  # fmt: skip


def by_transformers(oracle: GPT2LMHeadModel, ids: Ids) -> torch.Tensor:
    """Log-probabilities after each position, float32 [positions, vocab]."""
    with torch.inference_mode():
        logits: torch.Tensor = oracle(torch.tensor([ids])).logits[0]
    return logits.float().log_softmax(-1)


def batches(rng: np.random.Generator) -> list[list[Ids]]:
    """Of random ids."""
    lengths = rng.integers(2, 120, (BATCHES, BATCH))
    return [[rng.integers(1, VOCAB, length).tolist() for length in row] for row in lengths]


def check(oracle: GPT2LMHeadModel, choice: Any, prompt: Ids, max_tokens: int) -> None:
    told = choice["logprobs"]
    made = len(told["tokens"]) - len(prompt)
    assert made == max_tokens
    odds = by_transformers(oracle, prompt)
    assert told["token_logprobs"][0] is None
    assert told["top_logprobs"][0] is None
    for position, token in enumerate(prompt[1:], start=1):
        value, top = told["token_logprobs"][position], told["top_logprobs"][position]
        before = odds[position - 1]
        assert value == pytest.approx(before[token].item(), abs=TOLERANCE)
        assert max(top.values()) == pytest.approx(before.max().item(), abs=TOLERANCE)
        # What lm-eval calls greedy: equal numbers, which must be so just where the token is the likeliest.
        if (margin := (before.max() - before[token]).item()) == 0 or margin > TOLERANCE:
            assert (value == max(top.values())) == (margin == 0)
    if made:
        assert told["token_logprobs"][-1] == max(told["top_logprobs"][-1].values())
        assert told["token_logprobs"][-1] == pytest.approx(odds[-1].max().item(), abs=TOLERANCE)


def test_log_likelihoods_under_load_are_those_of_transformers(url: str, oracle: GPT2LMHeadModel) -> None:
    print(f"seed {SEED}")
    every, over = batches(np.random.default_rng(SEED)), threading.Event()

    def load() -> int:
        """Others who sample meanwhile."""
        count = 0
        while not over.is_set() and count < 200:
            complete(url, {"prompt": ["the river", "a light"], "n": 2, "max_tokens": 24, "ignore_eos": True})
            count += 1
        return count

    with concurrent.futures.ThreadPoolExecutor(CLIENTS + 2) as pool:
        others = [pool.submit(load) for _ in range(2)]
        try:
            sent = [(batch, i % 2, pool.submit(complete, url, asked(batch, i % 2))) for i, batch in enumerate(every)]
            answers = [(batch, max_tokens, answer.result()) for batch, max_tokens, answer in sent]
        finally:
            over.set()
        assert all(other.result() >= 1 for other in others)
    for batch, max_tokens, answer in answers:
        assert [choice["index"] for choice in answer["choices"]] == [*range(BATCH)]
        assert answer["usage"]["completion_tokens"] == max_tokens * BATCH
        for choice, prompt in zip(answer["choices"], batch, strict=True):
            check(oracle, choice, prompt, max_tokens)


def test_a_greedy_continuation_is_recognised_as_one(url: str, oracle: GPT2LMHeadModel) -> None:
    context = [5, 9, 200, 17]
    made = complete(url, asked([context], 1) | {"max_tokens": 20, "echo": False, "return_token_ids": True})
    continuation = made["choices"][0]["token_ids"]
    (choice,) = complete(url, asked([context + continuation], 1))["choices"]
    told, length = choice["logprobs"], len(context)
    values, tops = told["token_logprobs"][length:-1], told["top_logprobs"][length:-1]
    assert len(values) == len(continuation)
    assert all(value == max(top.values()) for value, top in zip(values, tops, strict=True))
    odds = by_transformers(oracle, context + continuation)
    expected = sum(odds[length + i - 1][token].item() for i, token in enumerate(continuation))
    assert sum(values) == pytest.approx(expected, abs=TOLERANCE * len(continuation))
    # lm-eval scores the same continuation token by token too; the numbers do not depend on what follows.
    assert made["choices"][0]["logprobs"]["token_logprobs"] == pytest.approx(values, abs=TOLERANCE)


def test_text_is_scored_as_its_ids_are(url: str) -> None:
    text = "the old stone bridge, and the boy"
    (by_text,) = complete(url, asked([], 1) | {"prompt": text})["choices"]
    body = json.dumps({"prompt": text}).encode()
    request = urllib.request.Request(url + "/tokenize", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        ids = json.load(answer)["tokens"]
    (by_ids,) = complete(url, asked([ids], 1))["choices"]
    assert by_text["text"] == by_ids["text"]
    assert by_text["text"].startswith(text)
    assert by_text["logprobs"]["tokens"] == by_ids["logprobs"]["tokens"]
    assert by_text["logprobs"]["token_logprobs"][1:] == pytest.approx(
        by_ids["logprobs"]["token_logprobs"][1:], abs=TOLERANCE
    )
    for token, offset in zip(by_text["logprobs"]["tokens"], by_text["logprobs"]["text_offset"], strict=True):
        assert token.startswith(("bytes:", "token_id:")) or by_text["text"].startswith(token, offset)
