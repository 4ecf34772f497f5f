"""The offline face: one generation a prompt, in order, whatever the prompts and switches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ridgeline import LLM, SamplingParams
from ridgeline.core.errors import BadRequest
from tests.tiny_gpt2 import write_tiny_gpt2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_gpt2(tmp_path_factory.mktemp("model") / "tiny", seed=3))


@pytest.fixture(scope="module")
def llm(folder: str) -> LLM:
    return LLM(folder, dtype="float32", device="cpu", kv_memory="64MiB")


def test_generates_in_order(llm: LLM) -> None:
    params = [SamplingParams(max_tokens=n, temperature=0, ignore_eos=True) for n in (9, 3, 6)]
    made = llm.generate(["the river", "a light", "the boy"], params)
    assert [len(g.token_ids) for g in made] == [9, 3, 6]
    alone = llm.generate("a light", params[1])
    assert (alone[0].text, alone[0].token_ids) == (made[1].text, made[1].token_ids)
    assert llm.tokenizer.decode(made[0].token_ids) == made[0].text


def test_ids_and_text_are_the_same_prompt(llm: LLM) -> None:
    params = SamplingParams(max_tokens=5, temperature=0)
    ids = llm.tokenizer.encode("the old bridge").tolist()
    assert llm.generate([ids], params)[0].token_ids == llm.generate("the old bridge", params)[0].token_ids
    assert llm.generate(ids, params)[0].prompt_ids == ids


def test_a_seed_fixes_the_tokens_whatever_runs_beside_it(llm: LLM, folder: str) -> None:
    params = SamplingParams(max_tokens=12, temperature=1.0, top_p=0.95, seed=11, ignore_eos=True)
    alone = llm.generate("the miller", params)[0].token_ids
    crowd = llm.generate(["a", "b", "the miller", "c"], [SamplingParams(max_tokens=20)] * 2 + [params] * 2)
    assert crowd[2].token_ids == alone
    other = LLM(folder, dtype="float32", device="cpu", kv_memory="64MiB", batching="one", packing="padded")
    assert other.generate("the miller", params)[0].token_ids == alone
    assert llm.generate("the miller", SamplingParams(max_tokens=12, seed=12))[0].token_ids != alone


def test_a_stop_string_ends_the_text_before_it(llm: LLM) -> None:
    free = llm.generate("the valley", SamplingParams(max_tokens=40, temperature=0, ignore_eos=True))[0]
    stop = free.text[10:13]
    cut = llm.generate("the valley", SamplingParams(max_tokens=40, temperature=0, ignore_eos=True, stop=(stop,)))[0]
    assert cut.finish_reason == "stop"
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.token_ids == free.token_ids[: len(cut.token_ids)]
    assert llm.counters.running == llm.counters.waiting == 0


def test_a_stop_token_is_a_token_without_text(llm: LLM) -> None:
    base = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
    free = llm.generate("the valley", base)[0]
    stop = free.token_ids[6]
    count = free.token_ids.index(stop) + 1
    cut = llm.generate("the valley", replace(base, stop_token_ids=(stop,), logprobs=0))[0]
    assert (cut.finish_reason, cut.token_ids) == ("stop", free.token_ids[:count])
    assert cut.text == llm.tokenizer.decode(free.token_ids[: count - 1])
    assert cut.logprobs is not None
    assert [one.token_id for one in cut.logprobs] == cut.token_ids


def test_log_probabilities_are_given_where_they_are_asked(llm: LLM) -> None:
    base = SamplingParams(max_tokens=5, temperature=0, ignore_eos=True)
    each = [base, replace(base, logprobs=2), replace(base, prompt_logprobs=0), replace(base, logprobs=0)]
    free, some, prompt, own = llm.generate(["the valley"] * 4, each)
    assert (free.logprobs, free.prompt_logprobs, some.prompt_logprobs, prompt.logprobs) == (None,) * 4
    assert some.logprobs is not None
    assert [one.top[0] for one in some.logprobs] == [(one.token_id, one.logprob) for one in some.logprobs]
    assert prompt.prompt_logprobs is not None
    assert [one and one.token_id for one in prompt.prompt_logprobs] == [None, *prompt.prompt_ids[1:]]
    assert own.logprobs is not None
    assert [(one.logprob, one.top) for one in own.logprobs] == [(one.logprob, ()) for one in some.logprobs]


def test_log_probabilities_end_with_the_text(llm: LLM) -> None:
    base = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)
    free = llm.generate("the valley", base)[0]
    cut = llm.generate("the valley", replace(base, stop=(free.text[10:13],), logprobs=0))[0]
    assert cut.logprobs is not None
    assert [one.token_id for one in cut.logprobs] == cut.token_ids


def test_a_window_that_nobody_joins_closes_by_itself(folder: str) -> None:
    llm = LLM(folder, dtype="float32", device="cpu", kv_memory="64MiB", batching="dynamic", batch_window_ms=5.0)
    made = llm.generate(["a", "b"], SamplingParams(max_tokens=3))
    assert made[0].timings.batch is not None
    assert (made[0].timings.batch.size, made[0].timings.batch.closed) == (2, "window")


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ([[]], SamplingParams(), "at least one token"),
        ([[5] * 250], SamplingParams(max_tokens=32), "256"),
        ([[99_999]], SamplingParams(), "token ids"),
        ([[-1]], SamplingParams(), "token ids"),
        ([[5, 2**31]], SamplingParams(), "token ids"),
        ([[2**70]], SamplingParams(), "token ids"),
        ([[5]], SamplingParams(logit_bias=((99_999, 1.0),)), "logit_bias"),
        ([[5]], SamplingParams(stop_token_ids=(99_999,)), "stop_token_ids"),
    ],
)
def test_a_prompt_that_cannot_run_is_refused_and_leaves_nothing(
    llm: LLM, prompt: list[list[int]], params: SamplingParams, message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        llm.generate([[5], *prompt], params)
    assert llm.counters.running == llm.counters.waiting == 0
    assert llm.generate("fine", SamplingParams(max_tokens=2))[0].token_ids


def test_switches_are_checked(folder: str, tmp_path: Path) -> None:
    from ridgeline.core.errors import ConfigError

    with pytest.raises(ConfigError, match="did you mean"):
        LLM(folder, bachting="one")
    with pytest.raises(ConfigError, match=r"config\.json"):
        LLM(str(tmp_path))


def test_an_interrupt_in_the_middle_leaves_a_usable_model(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(launched: object) -> None:
        raise KeyboardInterrupt

    before = llm.generate("the tower", SamplingParams(max_tokens=4, temperature=0))[0].token_ids
    with monkeypatch.context() as patched:
        patched.setattr(llm._engine.runner, "collect", interrupted)
        with pytest.raises(KeyboardInterrupt):
            llm.generate(["the tower", "a"], SamplingParams(max_tokens=4))
    assert llm.generate("the tower", SamplingParams(max_tokens=4, temperature=0))[0].token_ids == before
    assert llm.counters.running == llm.counters.waiting == llm.counters.kv_blocks == 0


def test_an_interrupted_prompt_is_computed_again(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No block of it may be found by others: its later layers were never written."""
    calls = 0

    def hidden(*given: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:  # of the second chunk
            raise KeyboardInterrupt
        return real(*given)

    options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "kv_memory": "64MiB", "max_num_batched_tokens": 48}
    llm, fresh = LLM(folder, max_num_seqs=4, **options), LLM(folder, max_num_seqs=4, **options)
    prompts, params = [[7, *range(100)], list(range(60))], SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
    model = llm._engine.runner.eager.model  # type: ignore[attr-defined]
    real = model.hidden
    with monkeypatch.context() as patched:
        patched.setattr(model, "hidden", hidden)
        with pytest.raises(KeyboardInterrupt):
            llm.generate(prompts, params)
    assert llm.counters.running == llm.counters.waiting == llm.counters.kv_blocks == 0
    again, expected = llm.generate(prompts, params), fresh.generate(prompts, params)
    assert [made.token_ids for made in again] == [made.token_ids for made in expected]


def test_an_interrupt_behind_a_submission_leaves_no_orphan(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    real = llm._engine.submit

    def interrupted(request: object) -> None:
        real(request)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(llm._engine, "submit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            llm.generate("a", SamplingParams(max_tokens=4))
    assert llm.counters.running == llm.counters.waiting == 0
    assert llm.generate("a", SamplingParams(max_tokens=2, ignore_eos=True))[0].finish_reason == "length"


def test_one_stop_string_is_one_string() -> None:
    assert SamplingParams(stop="END").stop == ("END",)  # type: ignore[arg-type]


def test_arguments_that_would_be_ignored_are_refused(folder: str) -> None:
    from ridgeline.core.config import Config
    from ridgeline.core.errors import ConfigError

    with pytest.raises(ConfigError, match="not both"):
        LLM(folder, config=Config.of(model="demo"))
    with pytest.raises(ConfigError, match="port"):
        LLM(folder, port=8001)


def test_a_stream_is_the_generation_in_pieces(llm: LLM) -> None:
    params = [SamplingParams(max_tokens=n, temperature=0, ignore_eos=True) for n in (7, 3)]
    whole = llm.generate(["the river", "a light"], params)
    pieces = list(llm.stream(["the river", "a light"], params))
    for index, result in enumerate(whole):
        mine = [piece for piece in pieces if piece.index == index]
        assert "".join(piece.text for piece in mine) == result.text
        assert [token for piece in mine for token in piece.token_ids] == result.token_ids
        assert [piece.end is not None for piece in mine] == [False] * (len(mine) - 1) + [True]
        assert mine[-1].end is not None
        assert mine[-1].end.text == result.text
    assert pieces[0].end is None, "it comes before the end"
    assert {piece.index for piece in pieces[:2]} == {0, 1}


def test_a_reader_that_leaves_ends_its_stream(llm: LLM) -> None:
    stream = llm.stream(["the river", "a light"], SamplingParams(max_tokens=30, ignore_eos=True))
    next(stream)
    with pytest.raises(BadRequest, match="another stream"):
        llm.generate("the boy", SamplingParams(max_tokens=2))
    stream.close()
    assert llm.counters.running == llm.counters.waiting == llm.counters.kv_blocks == 0
    assert llm.generate("the boy", SamplingParams(max_tokens=2))[0].text
