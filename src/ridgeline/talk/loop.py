"""Talk: read, answer, again. Knows commands and a conversation; knows neither where lines come from nor who answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from ridgeline.core.errors import BadRequest, RidgelineError, did_you_mean
from ridgeline.core.plaintext import CONTROLS
from ridgeline.talk.conversation import Conversation, Turn
from ridgeline.talk.lines import Lines, read_message
from ridgeline.talk.partner import Partner

HELP = """/reset         forget what was said, not the system's text
/system TEXT   what stands before the conversation; without TEXT: nothing
/exit          end; Ctrl-D does the same
Ctrl-C stops an answer. A backslash at a line's end: the next line belongs to it. A line that begins with a space is no
command."""
CONTINUES = "\nWhat you type is continued as text; Enter alone goes on."


def _first_word(message: str) -> str:
    """Up to the first space; a message that begins with one has none."""
    return message.split(maxsplit=1)[0] if message.startswith("/") else ""


class Talk:
    """out: answers and nothing else. tell: everything else that a person should know."""

    def __init__(
        self, partner: Partner, lines: Lines, conversation: Conversation, out: TextIO, tell: Callable[[str], None]
    ) -> None:
        self._partner, self._lines, self._conversation = partner, lines, conversation
        self._out, self._tell = out, tell
        self._table = CONTROLS if out.isatty() else {}
        self._told = False
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/reset": self._reset,
            "/system": self._system,
        }

    def run(self) -> None:
        """Until the lines end or /exit. With a person at the keyboard, what goes wrong is told and it goes on."""
        while True:
            try:
                message = read_message(self._lines)
                if message is None or _first_word(message) == "/exit":
                    return
                self._take(message)
            except KeyboardInterrupt:
                if not self._lines.typed:
                    raise
            except RidgelineError as error:
                if not self._lines.typed:
                    raise
                self._tell(f"error: {error}")

    def _take(self, message: str) -> None:
        if name := _first_word(message):
            if name not in self._commands:
                near = did_you_mean(name, [*self._commands, "/exit"])
                raise BadRequest(
                    f"{name}: no such command{near}; /help lists them, and a space before it makes it text"
                )
            self._commands[name](message.removeprefix(name).strip())
        elif message.strip() or (self._partner.continues and self._conversation.text()):
            self._answer(message.removeprefix(" ") if message.startswith(" /") else message)

    def _answer(self, said: str) -> None:
        conversation, parts = self._conversation, list[str]()
        turns, left_out = list(conversation.turns), conversation.left_out
        conversation.turns.append(Turn(said))

        def say(text: str) -> None:
            parts.append(text)
            self._out.write(text.translate(self._table))
            self._out.flush()

        try:
            reason = self._partner.answer(conversation, say)
        except (RidgelineError, KeyboardInterrupt) as error:
            if isinstance(error, RidgelineError) and not any(parts):  # as if it had not been said
                conversation.turns[:], conversation.left_out = turns, left_out
            else:
                self._end(said, parts)
            raise
        self._end(said, parts)
        if reason == "length" and not self._partner.continues:
            self._tell("the answer ends here for its length: --max-tokens, or the end of the context")

    def _end(self, said: str, parts: list[str]) -> None:
        """What was said until now is remembered."""
        self._conversation.turns[-1] = Turn(said, "".join(parts))
        self._out.write("\n")
        self._out.flush()
        if self._conversation.left_out and not self._told:
            self._told = True
            self._tell("the context is full: from here on the oldest turns are left out")

    def _help(self, _rest: str) -> None:
        self._tell(HELP + (CONTINUES if self._partner.continues else ""))

    def _reset(self, _rest: str) -> None:
        self._conversation.reset()
        self._told = False
        self._tell("what was said is forgotten")

    def _system(self, text: str) -> None:
        self._conversation.system = text
        self._tell("set" if text else "removed")
