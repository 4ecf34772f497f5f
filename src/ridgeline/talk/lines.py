"""Lines: where a person's words come from, a keyboard or a pipe. Knows no command and no conversation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.output import create_output


class Lines(Protocol):
    """typed: a person sits there, who is asked, and told of mistakes; otherwise a mistake ends the program."""

    typed: bool

    def read(self, prompt: str) -> str | None:
        """A line without its end; None when there are no more. Typed ones raise KeyboardInterrupt for Ctrl-C."""
        ...


class Piped:
    typed = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def read(self, prompt: str) -> str | None:  # noqa: ARG002  (nobody is asked)
        line = self._stream.readline()
        return line.rstrip("\r\n") if line else None


class Typed:
    """With editing, and the lines of earlier days on the arrow keys. history: their file, None keeps none."""

    typed = True

    def __init__(self, history: Path | None) -> None:
        kept: History = InMemoryHistory() if history is None else FileHistory(history)
        # Where stdout is a pipe, the prompt goes to the terminal that stderr is.
        self._session: PromptSession[str] = PromptSession(history=kept, output=create_output(always_prefer_tty=True))

    def read(self, prompt: str) -> str | None:
        try:
            return self._session.prompt(prompt)
        except EOFError:
            return None


def history_file(folder: Path, tell: Callable[[str], None]) -> Path | None:
    """Its path, for the user's eyes only; None, and a line about it, where the folder cannot be written to."""
    path = folder / "chat-history"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("ab"):
            return path
    except OSError as error:
        tell(f"{path}: {error.strerror or error}; what you type is not kept")
        return None


def read_message(lines: Lines) -> str | None:
    """One line, or several of which each but the last ends with a backslash. None: there is nothing more."""
    parts, prompt = list[str](), "> "
    while (line := lines.read(prompt)) is not None:
        if not line.endswith("\\"):
            return "\n".join([*parts, line])
        parts.append(line[:-1])
        prompt = "| "
    return "\n".join(parts) if parts else None
