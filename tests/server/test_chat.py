"""Conversations through the real `openai` client, and models that know none."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.scripted import naive_logprobs
from tests.server.live import SCORED, TEXT, Live, Stage, serving

BYTES = TEXT.encode()
ASK: dict[str, Any] = {
    "model": "recite",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
    "temperature": 0,
    "max_completion_tokens": 30,
}
RENDERED = "<system>Be brief.\n<user>hi\n<assistant>"


def test_an_answer_is_a_message(client: OpenAI) -> None:
    answer = client.chat.completions.create(**ASK, extra_body={"return_token_ids": True})
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.refusal) == ("assistant", None)
    assert choice.message.content is not None
    assert choice.message.content.startswith(BYTES[:27].decode("utf-8", "ignore"))
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert (answer.object, answer.id[:9]) == ("chat.completion", "chatcmpl-")
    assert choice.model_extra is not None
    assert bytes(choice.model_extra["prompt_token_ids"]).decode() == RENDERED
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(RENDERED), 30)


def test_a_stream_begins_with_the_role_and_ends_with_the_reason_and_usage(client: OpenAI) -> None:
    options: Any = {"include_usage": True}
    first, *chunks, last = client.chat.completions.create(**ASK, stop="Once", stream=True, stream_options=options)
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert first.object == "chat.completion.chunk"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT.split("Once")[0]
    assert [chunk.choices[0].finish_reason for chunk in [first, *chunks]][:-1] == [None] * len(chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert (last.choices, last.usage is not None) == ([], True)


def test_logprobs_are_a_list_of_tokens_with_their_bytes(client: OpenAI) -> None:
    ask = ASK | {"max_completion_tokens": 4, "logprobs": True, "top_logprobs": 2}
    (choice,) = client.chat.completions.create(**ask).choices
    scores = naive_logprobs([*RENDERED.encode(), *BYTES[:4]], 2, len(RENDERED), SCORED)
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert [item.token for item in choice.logprobs.content] == ["G", "r", "bytes:\\xc3", "bytes:\\xbc"]
    assert [item.bytes for item in choice.logprobs.content] == [[byte] for byte in BYTES[:4]]
    assert [item.logprob for item in choice.logprobs.content] == [score.logprob for score in scores]
    tops = [[top.logprob for top in item.top_logprobs] for item in choice.logprobs.content]
    assert tops == [[value for _, value in score.top] for score in scores]
    parts = [chunk.choices[0].logprobs for chunk in client.chat.completions.create(**ask, stream=True)]
    assert [item for part in parts if part for item in part.content or []] == choice.logprobs.content


def test_several_choices_and_text_parts(client: OpenAI) -> None:
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    ask = ASK | {"messages": parts, "n": 3, "temperature": 1, "seed": 1}
    answer = client.chat.completions.create(**ask)
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("<user>ab\n<assistant>")
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**ask, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == [choice.message.content for choice in answer.choices]


def test_without_a_number_the_answer_may_fill_the_model(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="recite", messages=ASK["messages"], temperature=0)
    assert answer.usage is not None
    assert answer.usage.total_tokens == 256


def test_fields_that_ask_for_nothing_are_accepted(live: Live) -> None:
    nothing: dict[str, object] = {
        "tools": [], "tool_choice": "none", "functions": None, "response_format": {"type": "text"}, "logprobs": False,
        "parallel_tool_calls": True, "modalities": ["text"], "max_tokens": 30, "top_logprobs": None, "audio": None,
    }  # fmt: skip
    reply = live.fetch("/v1/chat/completions", "POST", json.dumps(ASK | nothing).encode())
    assert reply.status == 200, reply.body


def test_a_model_without_a_template_says_what_to_use_instead() -> None:
    with serving(Stage(chat=None)) as live:
        with pytest.raises(openai.BadRequestError, match=r"no chat template.*/v1/completions") as caught:
            live.openai.chat.completions.create(**ASK)
        assert caught.value.param == "messages"
        assert live.fetch("/tokenizer_info").json["chat_template"] is None
        assert live.openai.completions.create(model="recite", prompt="x", max_tokens=1).choices


def test_the_ids_of_the_prompt_come_with_the_first_chunk(client: OpenAI) -> None:
    first, *others = client.chat.completions.create(**ASK, stream=True, extra_body={"return_token_ids": True})
    assert bytes((first.choices[0].model_extra or {})["prompt_token_ids"]).decode() == RENDERED
    assert not any("prompt_token_ids" in (chunk.choices[0].model_extra or {}) for chunk in others)
