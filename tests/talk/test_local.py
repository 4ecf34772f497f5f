"""A model in this process: an interrupt ends one answer and leaves an engine that gives the same answers as before."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ridgeline.core.params import SamplingParams
from ridgeline.llm import LLM
from ridgeline.talk.conversation import Conversation, Turn
from ridgeline.talk.local import Local
from ridgeline.text.chat import ChatTemplate
from tests.tiny_gpt2 import write_tiny_gpt2

PARAMS = SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    folder = write_tiny_gpt2(tmp_path_factory.mktemp("model") / "tiny")
    return LLM(str(folder), device="cpu", kv_memory="16MiB")


@pytest.fixture
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_one_answer_between_two_steps(llm: LLM, interruptible: None) -> None:
    local, conversation = Local(llm, None, PARAMS), Conversation(turns=[Turn("the river")])
    whole, half = list[str](), list[str]()
    assert local.answer(conversation, whole.append) == "length"

    def say(text: str) -> None:
        half.append(text)
        if len(half) == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        local.answer(conversation, say)
    assert half == whole[:3]
    assert llm.counters.running == llm.counters.waiting == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = list[str]()
    local.answer(conversation, again.append)
    assert again == whole


def test_a_template_writes_the_prompt_and_the_answer_gets_what_room_there_is(llm: LLM) -> None:
    context = llm.info.max_model_len
    template = ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    text = "user: " + "a" * (context - 12) + "\n"
    room = context - len(llm.tokenizer.encode(text))
    assert 0 < room < PARAMS.max_tokens
    told, parts = llm.generate(text, SamplingParams(max_tokens=room, temperature=0.0, ignore_eos=True)), list[str]()
    Local(llm, template, PARAMS).answer(Conversation(turns=[Turn("a" * (context - 12))]), parts.append)
    assert "".join(parts) == told[0].text
