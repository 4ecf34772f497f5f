"""The command that talks to a model in the terminal."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ridgeline.cli.environment import api_key, cache_dir, hub_access
from ridgeline.cli.options import options
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError

if TYPE_CHECKING:
    from ridgeline.talk.lines import Lines
    from ridgeline.talk.partner import Partner
    from ridgeline.terminal import Terminal

ANSWER_TOKENS, CONTINUED_TOKENS = 512, 64  # a chat model ends an answer by itself, a text goes on for ever
_FROM_MODEL = "Default: as the model's generation config says."
NO_TEMPLATE = "the model has no chat template: what you type is continued as text, and Enter alone goes on"
UNKNOWN = "the server does not say whether its model has a chat template: what you type is continued as text"


@options("model", "batching", "limits")
def chat(
    config: Config,
    url: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Talk to this running server; its key, where it wants one, is OPENAI_API_KEY."),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="No roles: the whole text so far is continued.")] = False,
    system: Annotated[str, typer.Option(help="What stands before the conversation.")] = "",
    max_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help=f"New tokens of an answer at most. Default: {ANSWER_TOKENS}, of plain text {CONTINUED_TOKENS}."
        ),
    ] = None,
    temperature: Annotated[Optional[float], typer.Option(help=f"0 is greedy. {_FROM_MODEL}")] = None,  # noqa: UP045
    top_k: Annotated[Optional[int], typer.Option(help=f"The k likeliest; 0 is off. {_FROM_MODEL}")] = None,  # noqa: UP045
    top_p: Annotated[Optional[float], typer.Option(help=f"The likeliest with that sum. {_FROM_MODEL}")] = None,  # noqa: UP045
) -> None:
    """Talk to a model; answers are printed as they are made. /help lists what else can be said.

    Example: ridgeline chat --model demo
    """
    from ridgeline.core.params import SamplingParams
    from ridgeline.talk.conversation import Conversation
    from ridgeline.talk.loop import Talk
    from ridgeline.terminal import Terminal

    terminal = Terminal()
    asked = {"max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    SamplingParams(**given)  # raises before anything is loaded
    if url is None:
        partner = _local(config, plain, given, terminal)
    elif config == Config.of():
        partner = _remote(url, plain, given, terminal)
    else:
        raise ConfigError("--url: the server has chosen its model; leave out the options about models and batching")
    Talk(partner, _lines(terminal), Conversation(system), sys.stdout, terminal.say).run()


def _local(config: Config, plain: bool, given: dict[str, Any], terminal: Terminal) -> Partner:
    from ridgeline.llm import LLM
    from ridgeline.talk.local import Local
    from ridgeline.text.chat import ChatTemplate

    llm = LLM(config=config, access=hub_access(), cache=cache_dir(), terminal=terminal)
    template = None if plain else ChatTemplate.load(llm.folder)
    if template is None and not plain:
        terminal.say(NO_TEMPLATE)
    return Local(llm, template, replace(llm.default_params, **_with_length(given, template is None)))


def _remote(url: str, plain: bool, given: dict[str, Any], terminal: Terminal) -> Partner:
    from ridgeline.talk import remote

    address = remote.Address.parse(url, api_key())
    facts = remote.ask_facts(address)
    continues = plain or not facts.has_template
    if continues and not plain:
        terminal.say(UNKNOWN if facts.has_template is None else NO_TEMPLATE)
    fields = _with_length(given, continues)
    return remote.Remote(
        address, facts, remote.Plain() if continues else remote.Chat(), fields.pop("max_tokens"), fields
    )


def _with_length(given: dict[str, Any], continues: bool) -> dict[str, Any]:
    return {"max_tokens": CONTINUED_TOKENS if continues else ANSWER_TOKENS} | given


def _lines(terminal: Terminal) -> Lines:
    from ridgeline.talk.lines import Piped, Typed, history_file

    if sys.stdin.isatty():
        terminal.say("/help lists the commands; Ctrl-D ends")
        return Typed(history_file(cache_dir(), terminal.say))
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    return Piped(sys.stdin)
