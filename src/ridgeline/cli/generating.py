"""The commands that generate without a server."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from json import dumps as json_text
from typing import TYPE_CHECKING, Annotated, Any, Optional, TextIO

import typer

from ridgeline.cli.environment import cache_dir, hub_access
from ridgeline.cli.options import options
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError

if TYPE_CHECKING:
    from ridgeline.llm import Generation, Piece

_FROM_MODEL = "Default: as the model's generation config says."


@options("model", "batching", "limits")
def generate(
    config: Config,
    prompt: Annotated[list[str], typer.Argument(help="One prompt or several, which run as one batch; - is stdin.")],
    max_tokens: Annotated[int, typer.Option(help="New tokens at most.")] = 64,
    temperature: Annotated[Optional[float], typer.Option(help=f"0 is greedy. {_FROM_MODEL}")] = None,  # noqa: UP045
    top_k: Annotated[Optional[int], typer.Option(help=f"The k likeliest; 0 is off. {_FROM_MODEL}")] = None,  # noqa: UP045
    top_p: Annotated[Optional[float], typer.Option(help=f"The likeliest with that sum. {_FROM_MODEL}")] = None,  # noqa: UP045
    stop: Annotated[Optional[list[str]], typer.Option(help="Ends the text before it; may be repeated.")] = None,  # noqa: UP045
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object a prompt, on one line, instead of text.")
    ] = False,
    stats: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--stats/--no-stats", help="A last line about speed on stderr. Default: if that is a terminal."),
    ] = None,
) -> None:
    """Continue a prompt and print the text as it is made.

    Example: ridgeline generate --model demo "Once upon a time"
    """
    from ridgeline.core.params import SamplingParams
    from ridgeline.llm import LLM
    from ridgeline.terminal import Terminal

    prompts = _read(prompt)
    asked: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    asked["stop"] = tuple(stop) if stop else None
    given = {name: value for name, value in asked.items() if value is not None}
    SamplingParams(**given)  # raises before anything is loaded
    llm = LLM(config=config, access=hub_access(), cache=cache_dir(), terminal=Terminal())
    params = replace(llm.default_params, **given)
    turns = (JsonLines if json else Turns)(prompts, sys.stdout)
    try:
        for piece in llm.stream(prompts, params):
            turns.push(piece)
    except KeyboardInterrupt:
        turns.interrupt()
        raise
    if sys.stderr.isatty() if stats is None else stats:
        print(_speed(turns.ends), file=sys.stderr)


class Turns:
    """Prints prompts and continuations one after the other: the one whose turn it is as it comes, the others later."""

    def __init__(self, prompts: Sequence[str], out: TextIO) -> None:
        self.ends: list[Generation] = []
        self._out, self._prompts = out, prompts
        self._waiting = [""] * len(prompts)
        self._over: dict[int, Generation] = {}
        self._begun = False  # the one whose turn it is

    def push(self, piece: Piece) -> None:
        self._waiting[piece.index] += piece.text
        if piece.end is not None:
            self._over[piece.index] = piece.end
        while (at := len(self.ends)) < len(self._prompts):
            self._show(at)
            if at not in self._over:
                break
            self._finish(self._over[at])
        self._out.flush()

    def interrupt(self) -> None:
        """What was begun gets its line end."""
        if self._begun:
            self._out.write("\n")
            self._out.flush()

    def _show(self, at: int) -> None:
        text = ("" if self._begun else self._prompts[at]) + self._waiting[at]
        self._waiting[at], self._begun = "", True  # first, as an interrupt may come out of the write
        self._out.write(text)

    def _finish(self, end: Generation) -> None:
        self._out.write("\n")
        self.ends.append(end)
        self._begun = False


class JsonLines(Turns):
    """An object a prompt, when it is over and its turn has come."""

    def interrupt(self) -> None:
        """Half an object is of no use to a reader."""

    def _show(self, at: int) -> None:
        """Nothing before the end."""

    def _finish(self, end: Generation) -> None:
        prompt, first_ns = self._prompts[len(self.ends)], end.timings.first_token_ns - end.timings.arrival_ns
        line = {
            "prompt": prompt,
            "text": end.text,
            "finish_reason": end.finish_reason,
            "prompt_tokens": len(end.prompt_ids),
            "completion_tokens": len(end.token_ids),
            "time_to_first_token_ms": round(first_ns / 1e6, 3),
            "total_ms": round((end.timings.finished_ns - end.timings.arrival_ns) / 1e6, 3),
        }
        self._out.write(json_text(line, ensure_ascii=False) + "\n")
        self.ends.append(end)


def _read(prompts: list[str]) -> list[str]:
    """`-` is what stands on stdin, without its last line end."""
    if prompts.count("-") > 1:
        raise ConfigError("-: stdin can be read once")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    try:
        texts = [sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt for prompt in prompts]
        for text in texts:
            text.encode()  # bytes of argv that are no text come as half characters
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise ConfigError(f"the prompt is not UTF-8 text ({error.reason})") from error
    return texts


def _speed(ends: Sequence[Generation]) -> str:
    began = min(end.timings.arrival_ns for end in ends)
    first_ms = (min(end.timings.first_token_ns for end in ends) - began) / 1e6
    seconds = (max(end.timings.finished_ns for end in ends) - began) / 1e9
    tokens = sum(len(end.token_ids) for end in ends)
    return f"{tokens} tokens in {seconds:.2f} s, the first after {first_ms:.0f} ms; {tokens / seconds:.1f} tokens/s"
