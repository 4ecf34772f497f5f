"""The loop between a person and whoever answers: commands, and what an interrupt or a mistake leaves remembered."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pytest

from ridgeline.core.errors import BadRequest, Unavailable
from ridgeline.talk.conversation import Conversation
from ridgeline.talk.lines import Piped
from ridgeline.talk.loop import Talk
from ridgeline.talk.partner import Say


class Scripted:
    """Answers with these pieces; what is an exception is raised. asked: the messages of each time."""

    def __init__(self, *answers: Iterable[str | BaseException], continues: bool = False) -> None:
        self.continues = continues
        self.asked: list[list[str]] = []
        self.reason = "stop"
        self._answers = iter(answers)

    def answer(self, conversation: Conversation, say: Say) -> str | None:
        self.asked.append([message["content"] for message in conversation.messages()])
        for piece in next(self._answers):
            if isinstance(piece, BaseException):
                raise piece
            say(piece)
        return self.reason


class Keyboard(Piped):
    typed = True


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def talk(partner: Scripted, text: str, typed: bool = True, out: io.StringIO | None = None) -> tuple[str, list[str]]:
    out, told = out or io.StringIO(), list[str]()
    lines = (Keyboard if typed else Piped)(io.StringIO(text))
    Talk(partner, lines, Conversation(), out, told.append).run()
    return out.getvalue(), told


def test_answers_are_all_that_stdout_gets_and_history_goes_along() -> None:
    partner = Scripted(["Hi", "."], ["So?"])
    assert talk(partner, "Hello\n\nI am \\\nhere\n")[0] == "Hi.\nSo?\n"
    assert partner.asked == [["Hello"], ["Hello", "Hi.", "I am \nhere"]]


def test_commands() -> None:
    partner = Scripted(["A"], ["B"], ["C"])
    out, told = talk(partner, "one\n/system Be brief.\n/reset\ntwo\n/help\n/resett\n /exit\n/exit now\nnever\n")
    assert out == "A\nB\nC\n"
    assert partner.asked[1:] == [["Be brief.", "two"], ["Be brief.", "two", "B", "/exit"]]
    assert any("did you mean '/reset'" in line for line in told)


def test_an_interrupt_keeps_what_was_said_and_a_failure_before_the_first_word_keeps_nothing() -> None:
    partner = Scripted(["Half", KeyboardInterrupt()], [BadRequest("no")], ["Part", Unavailable("gone")], ["D"])
    out, told = talk(partner, "one\ntwo\nthree\nfour\n")
    assert out == "Half\nPart\nD\n"
    assert partner.asked[-1] == ["one", "Half", "three", "Part", "four"]
    assert told == ["error: no", "error: gone"]


def test_without_a_person_a_mistake_and_an_interrupt_end_it() -> None:
    with pytest.raises(Unavailable):
        talk(Scripted([Unavailable("gone")]), "one\ntwo\n", typed=False)
    with pytest.raises(KeyboardInterrupt):
        talk(Scripted(["A", KeyboardInterrupt()]), "one\ntwo\n", typed=False)


def test_enter_alone_goes_on_only_where_a_text_is_continued() -> None:
    partner = Scripted([" upon"], [" a time"], continues=True)
    assert talk(partner, "\nOnce\n\n")[0] == " upon\n a time\n"


def test_that_turns_were_cut_is_told_once() -> None:
    class Forgetful(Scripted):
        def answer(self, conversation: Conversation, say: Say) -> str | None:
            conversation.cut()
            return super().answer(conversation, say)

    _, told = talk(Forgetful(["A"], ["B"], ["C"]), "one\ntwo\nthree\n")
    assert len([line for line in told if "context is full" in line]) == 1


def test_an_answer_that_had_no_more_room_is_told_but_not_of_a_text_that_never_ends() -> None:
    for continues, lines in ((False, 1), (True, 0)):
        partner = Scripted(["A"], continues=continues)
        partner.reason = "length"
        assert len(talk(partner, "one\n")[1]) == lines


def test_an_answer_cannot_drive_the_terminal() -> None:
    assert "\x1b" not in talk(Scripted(["\x1b]0;title\x07 ok"]), "one\n", out=Screen())[0]
    assert "\x1b" in talk(Scripted(["\x1b[0m"]), "one\n")[0]  # a file gets what was said
