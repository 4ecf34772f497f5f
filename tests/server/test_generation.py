"""Choices, log-probabilities, echo and stop tokens of completions, through the real `openai` client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import OpenAI
from openai.types import Completion

from ridgeline.core.params import derive_seed
from tests.scripted import naive_logprobs
from tests.server.live import SCORED, TEXT, Live, Stage, serving

BYTES = TEXT.encode()
GREEDY: dict[str, Any] = {"model": "recite", "prompt": "hello", "max_tokens": 8, "temperature": 0}
DRAWN: dict[str, Any] = {"model": "recite", "prompt": "hello", "max_tokens": 8, "seed": 5}


def create(client: OpenAI, **ask: Any) -> Completion:
    answer = client.completions.create(**ask)
    assert isinstance(answer, Completion)
    return answer


def values(ids: list[int], first: int = 1) -> list[float]:
    return [score.logprob for score in naive_logprobs(ids, 0, first, SCORED)]


def test_n_gives_choices_prompt_by_prompt_with_seeds_of_their_own(client: OpenAI) -> None:
    answer = create(client, **DRAWN | {"prompt": ["a", "bc"], "n": 3})
    texts = [choice.text for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [*range(6)]
    assert len(set(texts)) == 6
    seeds = [5, derive_seed(5, 1), derive_seed(5, 2)]
    assert texts == [
        create(client, **DRAWN | {"prompt": prompt, "seed": seed}).choices[0].text
        for prompt in ("a", "bc")
        for seed in seeds
    ]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 48), "a prompt counts once"


def test_equal_prompts_without_a_seed_are_drawn_apart(client: OpenAI) -> None:
    answer = create(client, **DRAWN | {"prompt": ["a", "a"], "n": 2, "seed": None})
    assert len({choice.text for choice in answer.choices}) == 4


def test_best_of_returns_the_likeliest_and_counts_all(client: OpenAI) -> None:
    every = create(client, **DRAWN | {"n": 6, "logprobs": 0})
    means = {}
    for choice in every.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.token_logprobs is not None
        means[choice.text] = sum(choice.logprobs.token_logprobs) / 8
    assert len(means) == 6
    best = create(client, **DRAWN | {"n": 2, "best_of": 6})
    assert [choice.text for choice in best.choices] == sorted(means, key=lambda text: -means[text])[:2]
    assert [(choice.index, choice.logprobs) for choice in best.choices] == [(0, None), (1, None)]
    assert best.usage is not None
    assert best.usage.completion_tokens == 48


def test_logprobs_are_parallel_lists_and_hold_the_token_itself(client: OpenAI) -> None:
    (choice,) = create(client, **GREEDY | {"logprobs": 2}).choices
    told = choice.logprobs
    assert told is not None
    assert told.tokens == ["G", "r", "bytes:\\xc3", "bytes:\\xbc", "bytes:\\xc3", "bytes:\\x9f", "e", ","]
    ids = [*b"hello", *BYTES[:8]]
    scores = naive_logprobs(ids, 2, 5, SCORED)
    assert told.token_logprobs == [score.logprob for score in scores]
    assert told.text_offset == [0, 1, 2, 2, 3, 3, 4, 5]
    assert told.top_logprobs is not None
    for token, score, top in zip(told.tokens, scores, told.top_logprobs, strict=True):
        assert top[token] == score.logprob
        assert max(top.values()) == score.top[0][1]
        assert 2 <= len(top) <= 3


@pytest.mark.parametrize("prompt", ["hello", [*b"hello"]])
def test_echo_begins_with_the_prompt_and_its_logprobs(client: OpenAI, prompt: str | list[int]) -> None:
    answer = create(client, **GREEDY | {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 2})
    (choice,) = answer.choices
    assert choice.text == "helloGr"
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == [*"helloGr"]
    assert choice.logprobs.text_offset == [*range(7)]
    assert choice.logprobs.token_logprobs == [None, *values([*b"helloGr"])]
    tops: list[dict[str, float] | None] = [*(choice.logprobs.top_logprobs or [])]
    assert [top is None for top in tops] == [True] + [False] * 6
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 2)


@pytest.mark.parametrize("echo", [True, False])
def test_no_tokens_are_made_for_max_tokens_0(client: OpenAI, echo: bool) -> None:
    answer = create(client, **GREEDY | {"max_tokens": 0, "echo": echo, "logprobs": 1})
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("hello" if echo else "", "length")
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs == ([None, *values([*b"hello"])] if echo else [])
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0


def test_a_stream_has_the_same_logprobs_as_the_whole(client: OpenAI) -> None:
    ask = GREEDY | {"echo": True, "logprobs": 3, "max_tokens": 40, "stop": ["a time"]}
    (whole,) = create(client, **ask).choices
    parts = [chunk.choices[0] for chunk in client.completions.create(**ask, stream=True)]
    assert "".join(part.text for part in parts) == whole.text
    assert whole.logprobs is not None
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [one for part in parts for one in getattr(part.logprobs, name)]
        assert joined == getattr(whole.logprobs, name)
    assert whole.logprobs.tokens is not None
    assert whole.logprobs.tokens[-6:] == [*"a time"], "what completed the stop string was made and counts"
    assert not whole.text.endswith("a time")


def test_a_stop_token_is_not_part_of_the_text_but_counts(client: OpenAI) -> None:
    ask = GREEDY | {"extra_body": {"stop_token_ids": [ord(",")], "return_token_ids": True, "min_tokens": 0}}
    answer = create(client, **ask | {"max_tokens": 20, "logprobs": 0})
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("Grüße", "stop")
    assert choice.model_extra is not None
    assert bytes(choice.model_extra["token_ids"]).decode() == "Grüße,"
    assert choice.logprobs is not None
    assert choice.logprobs.tokens is not None
    assert choice.logprobs.tokens[-1] == ","
    streamed = [chunk.choices[0] for chunk in client.completions.create(**ask | {"max_tokens": 20}, stream=True)]
    assert "".join(part.text for part in streamed) == "Grüße"
    assert [one for part in streamed for one in (part.model_extra or {})["token_ids"]] == [*"Grüße,".encode()]


def test_every_sampling_field_reaches_the_engine() -> None:
    stage = Stage()
    fields = {
        "temperature": 0.5, "top_k": 7, "top_p": 0.75, "min_p": 0.25, "presence_penalty": 1.5,
        "frequency_penalty": -0.5, "repetition_penalty": 1.25, "min_tokens": 2, "seed": 2**64 - 1,
    }  # fmt: skip
    more = {"logit_bias": {"65": 3, "66": -100.0}, "stop_token_ids": [4, 5], "ignore_eos": True, "cache_salt": "mine"}
    with serving(stage) as live:
        body = json.dumps({"prompt": "x", "max_tokens": 3, "logprobs": 4, "echo": True} | fields | more).encode()
        reply = live.fetch("/v1/completions", "POST", body)
        assert reply.status == 200, reply.body
    (sampling,) = stage.runner.samplings
    assert {name: getattr(sampling, name) for name in fields} == fields
    assert sampling.logit_bias == ((65, 3.0), (66, -100.0))
    assert sampling.stop_ids == (4, 5)
    assert (sampling.logprobs, sampling.prompt_logprobs) == (4, 4)


def test_usage_can_come_with_every_chunk(client: OpenAI) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = client.completions.create(**GREEDY | {"max_tokens": 30}, stream=True, stream_options=options)
    counts = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage is not None]
    assert len(counts) == len(chunks)
    assert counts == sorted(counts)
    assert counts[-1] == 30
    assert (last.choices, last.usage) == ([], chunks[-1].usage)


def test_a_lenient_server_names_what_it_does_not_know() -> None:
    with serving(Stage(lenient=True)) as live:
        body = json.dumps({"prompt": "x", "max_tokens": 1, "best_off": 3, "ünï\n": 1, "user": "me"}).encode()
        reply = live.fetch("/v1/completions", "POST", body)
        assert reply.status == 200
        assert reply.headers["x-ridgeline-ignored"] == r"user, best_off, \xfcn\xef\n"
        many = json.dumps({"prompt": "x", "max_tokens": 1} | {f"field{i}": 1 for i in range(5000)}).encode()
        assert len(live.fetch("/v1/completions", "POST", many).headers["x-ridgeline-ignored"]) < 1000


def test_clients_count_tokens_as_the_server_does(live: Live) -> None:
    def ask(path: str, body: object) -> Any:
        reply = live.fetch(path, "POST", json.dumps(body).encode())
        assert reply.status == 200, reply.body
        return reply.json

    found = ask("/tokenize", {"prompt": "Grü", "return_token_strs": True})
    assert found == {
        "tokens": [*"Grü".encode()], "count": 4, "max_model_len": 256,
        "token_strs": ["G", "r", "bytes:\\xc3", "bytes:\\xbc"],
    }  # fmt: skip
    assert ask("/detokenize", {"tokens": found["tokens"]}) == {"prompt": "Grü"}
    messages = [{"role": "user", "content": "hi"}]
    begun = ask("/tokenize", {"messages": messages})
    assert ask("/detokenize", {"tokens": begun["tokens"]}) == {"prompt": "<user>hi\n<assistant>"}
    closed = ask("/tokenize", {"messages": messages, "add_generation_prompt": False})
    assert bytes(closed["tokens"]) == b"<user>hi\n"
    info = live.fetch("/tokenizer_info").json
    assert (info["vocab_size"], info["max_model_len"]) == (257, 256)
    assert "message" not in info["chat_template"].split("{%")[0]
    assert set(live.fetch("/version").json) == {"version"}
