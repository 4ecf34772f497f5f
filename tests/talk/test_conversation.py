"""What is remembered and what is cut: whole turns, the oldest first, never the system's text."""

from __future__ import annotations

import pytest

from ridgeline.core.errors import BadRequest
from ridgeline.talk.conversation import Conversation, Turn, fit


def said(*pairs: tuple[str, str], system: str = "") -> Conversation:
    return Conversation(system, [Turn(*pair) for pair in pairs])


def characters(conversation: Conversation) -> list[int]:
    return list(conversation.text().encode())


def test_the_last_turn_waits_for_its_answer() -> None:
    conversation = said(("Hello", "Hi."), ("Bye", ""), system="Be brief.")
    assert [message["role"] for message in conversation.messages()] == ["system", "user", "assistant", "user"]
    assert conversation.messages()[-1]["content"] == "Bye"


def test_a_text_goes_on_after_an_answer_and_begins_a_line_with_new_words() -> None:
    conversation = said(("Once", " upon"), ("", " a time"), ("He", " said"), system="A tale.")
    assert conversation.text() == "A tale.\nOnce upon a time\nHe said"


def test_whole_turns_are_cut_from_the_oldest_and_the_system_stays() -> None:
    conversation = said(("a" * 10, "b" * 10), ("c" * 10, "d" * 10), ("e" * 10, ""), system="sys")
    ids = fit(conversation, characters, context=60, max_tokens=30)  # 45 for the prompt, as a quarter is kept free
    assert bytes(ids).decode() == "sys\n" + "c" * 10 + "d" * 10 + "\n" + "e" * 10
    assert conversation.left_out == 1


def test_nothing_is_cut_while_the_answer_has_room() -> None:
    conversation = said(("a" * 10, "b" * 10), ("c", ""))
    assert len(fit(conversation, characters, context=30, max_tokens=4)) == 22
    assert conversation.left_out == 0


def test_the_last_turn_may_eat_into_the_answers_room_but_not_all_of_it() -> None:
    assert len(fit(said(("a" * 39, "")), characters, context=40, max_tokens=10)) == 39
    with pytest.raises(BadRequest, match="at most 40"):
        fit(said(("a", "b"), ("a" * 40, "")), characters, context=40, max_tokens=10)
