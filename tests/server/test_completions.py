"""Completions through the real `openai` client: text, streams, stops, seeds, usage."""

from __future__ import annotations

import pytest
from openai import OpenAI

from tests.server.live import EOS, TEXT, Live, Stage, serving

BYTES = TEXT.encode()


def whole_characters(num_tokens: int) -> str:
    return BYTES[:num_tokens].decode("utf-8", "ignore")


def test_a_completion_has_the_text_its_reason_and_its_usage(client: OpenAI) -> None:
    answer = client.completions.create(model="recite", prompt="hello", max_tokens=30, temperature=0)
    (choice,) = answer.choices
    assert choice.text.startswith(whole_characters(27))
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 30, 35)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert (answer.object, answer.model) == ("text_completion", "recite")
    assert answer.id.startswith("cmpl-")


def test_a_stream_has_each_character_as_soon_as_it_is_whole_and_never_half_of_one() -> None:
    stage = Stage()
    with serving(stage) as live:
        stage.runner.hold()
        stage.runner.let(1)  # an answer begins with the first token
        stream = live.openai.completions.create(
            model="recite", prompt="x", max_tokens=len(BYTES), temperature=0, stream=True
        )  # fmt: skip
        for place, character in enumerate(TEXT[:-1]):
            stage.runner.let(len(character.encode()) if place else 0)
            choice = next(stream).choices[0]
            assert choice.text == character
            assert choice.finish_reason is None
        stage.runner.let(1)
        choice = next(stream).choices[0]
        assert (choice.text, choice.finish_reason) == (TEXT[-1], "length")
        assert list(stream) == []


@pytest.mark.parametrize("stop", ["END of", ["never", "END of"], ["a server. END of"]])
def test_a_stop_string_over_many_tokens_is_not_part_of_the_text(client: OpenAI, stop: str | list[str]) -> None:
    first = stop if isinstance(stop, str) else stop[-1]
    answer = client.completions.create(model="recite", prompt="x", max_tokens=200, temperature=0, stop=stop)
    assert answer.choices[0].text == TEXT.split(first)[0]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len((TEXT.split(first)[0] + first).encode())


def test_no_chunk_leaks_the_beginning_of_a_stop_string(client: OpenAI) -> None:
    stream = client.completions.create(
        model="recite", prompt="x", max_tokens=200, temperature=0, stop="END of", stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    *chunks, last = list(stream)
    text = ""
    for chunk in chunks:
        text += chunk.choices[0].text
        assert TEXT.split("END of")[0].startswith(text)
    assert text == TEXT.split("END of")[0]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == len((text + "END of").encode())
    assert all(chunk.usage is None for chunk in chunks)


def test_the_models_own_end_ends_the_text_unless_it_is_ignored() -> None:
    stage = Stage()
    stage.runner.script = [*b"Amen", EOS, *b" and more"]
    with serving(stage) as live:
        ask = {"model": "recite", "prompt": "x", "temperature": 0, "max_tokens": 9}
        answer = live.openai.completions.create(**ask)  # type: ignore[call-overload]
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Amen", "stop")
        assert answer.usage.completion_tokens == 5
        answer = live.openai.completions.create(**ask, extra_body={"ignore_eos": True})  # type: ignore[call-overload]
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("Amen and", "length")


def test_the_same_seed_gives_the_same_tokens_and_no_seed_gives_others(client: OpenAI) -> None:
    def text(seed: int | None) -> str:
        return client.completions.create(model="recite", prompt="x", max_tokens=24, seed=seed).choices[0].text

    assert text(7) == text(7)
    assert len({text(7), text(8), text(None), text(None)}) == 4


def test_requests_without_a_seed_repeat_after_a_restart() -> None:
    texts = []
    for _ in range(2):
        with serving() as live:
            create = live.openai.completions.create
            texts.append([create(model="recite", prompt="x", max_tokens=24).choices[0].text for _ in range(2)])
    assert texts[0] == texts[1]


def test_a_prompt_may_be_ids_and_ids_come_back(client: OpenAI) -> None:
    ask = {"model": "recite", "prompt": [72, 105], "max_tokens": 9, "temperature": 0}
    extra = {"return_token_ids": True}
    answer = client.completions.create(**ask, extra_body=extra)  # type: ignore[call-overload]
    fields = answer.choices[0].model_extra
    assert fields == {"token_ids": [*BYTES[:9]], "prompt_token_ids": [72, 105]}
    assert answer.usage.prompt_tokens == 2
    chunks = list(client.completions.create(**ask, stream=True, extra_body=extra))  # type: ignore[call-overload]
    ids = [chunk.choices[0].model_extra for chunk in chunks]
    assert [one for part in ids for one in part["token_ids"]] == [*BYTES[:9]]
    assert ids[0]["prompt_token_ids"] == [72, 105]
    assert not any("prompt_token_ids" in part for part in ids[1:])


@pytest.mark.parametrize("prompt", [["a", "bc", "def"], [[97], [98, 99], [100, 101, 102]]])
def test_several_prompts_give_choices_in_their_order(client: OpenAI, prompt: list[str]) -> None:
    answer = client.completions.create(model="recite", prompt=prompt, max_tokens=20, seed=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    alone = [client.completions.create(model="recite", prompt=one, max_tokens=20, seed=3) for one in prompt]
    assert [choice.text for choice in answer.choices] == [one.choices[0].text for one in alone]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (6, 60)


def test_several_streamed_prompts_come_interleaved() -> None:
    stage = Stage()
    with serving(stage) as live:
        stage.runner.hold()
        ask = {"model": "recite", "prompt": ["a", "b"], "max_tokens": 40, "temperature": 0, "stream": True}
        stage.runner.let(5)
        stream = live.openai.completions.create(**ask)  # type: ignore[call-overload]
        texts = ["", ""]
        while not all(texts):
            choice = next(stream).choices[0]
            assert choice.finish_reason is None
            texts[choice.index] += choice.text
        stage.runner.open()
        reasons = []
        for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].text
            reasons.append(chunk.choices[0].finish_reason)
        assert texts == [whole_characters(40)] * 2
        assert sorted(filter(None, reasons)) == ["length", "length"]


@pytest.mark.parametrize("stream", [False, True])
def test_timings_add_up_to_the_whole(client: OpenAI, stream: bool) -> None:
    ask = {"model": "recite", "prompt": "x", "max_tokens": 200, "temperature": 0, "stop": "END", "stream": stream}
    answer = client.completions.create(**ask, extra_body={"timings": True})  # type: ignore[call-overload]
    choice = [*answer][-1].choices[0] if stream else answer.choices[0]
    times = choice.model_extra["timings"]
    parts = ("window_ms", "queued_ms", "prefill_ms", "decode_ms")
    assert times["total_ms"] == pytest.approx(sum(times[part] for part in parts))
    assert all(times[part] >= 0 for part in parts)
    assert times["steps"] >= 60
    assert times["mean_rows"] >= 1
    assert times["batch"] is None


def test_max_tokens_left_out_is_what_fits_up_to_16(live: Live) -> None:
    answer = live.openai.completions.create(model="recite", prompt="x" * 250, temperature=0)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
    answer = live.openai.completions.create(model="recite", prompt="x", temperature=0)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_a_large_answer_is_the_same_as_a_small_one(client: OpenAI) -> None:
    ask = {"model": "recite", "prompt": "x", "max_tokens": 200, "temperature": 0, "logprobs": 5, "echo": True}
    (small,) = client.completions.create(**ask).choices  # type: ignore[call-overload]
    large = client.completions.create(**ask, n=8).choices  # type: ignore[call-overload]
    assert [choice.index for choice in large] == [*range(8)]
    assert {choice.text for choice in large} == {small.text}
    assert large[-1].logprobs.token_logprobs[0] is None
    assert large[-1].logprobs.text_offset == small.logprobs.text_offset
