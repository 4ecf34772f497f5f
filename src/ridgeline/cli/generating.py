"""The commands that generate without a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Optional

import typer

from ridgeline.cli.environment import hub_access
from ridgeline.cli.options import options
from ridgeline.core.config import Config

_FROM_MODEL = "Default: as the model's generation config says."


@options("model", "batching", "limits")
def generate(
    config: Config,
    prompt: Annotated[list[str], typer.Argument(help="One prompt or several; several run as one batch.")],
    max_tokens: Annotated[int, typer.Option(help="New tokens at most.")] = 64,
    temperature: Annotated[Optional[float], typer.Option(help=f"0 is greedy. {_FROM_MODEL}")] = None,  # noqa: UP045
    top_k: Annotated[Optional[int], typer.Option(help=f"The k likeliest; 0 is off. {_FROM_MODEL}")] = None,  # noqa: UP045
    top_p: Annotated[Optional[float], typer.Option(help=f"The likeliest with that sum. {_FROM_MODEL}")] = None,  # noqa: UP045
) -> None:
    """Continue a prompt and print the text.

    Example: ridgeline generate --model demo "Once upon a time"
    """
    from ridgeline.llm import LLM
    from ridgeline.terminal import Terminal

    llm = LLM(config=config, access=hub_access(), terminal=Terminal())
    asked: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    params = replace(llm.default_params, **{name: value for name, value in asked.items() if value is not None})
    for text, result in zip(prompt, llm.generate(prompt, params), strict=True):
        print(text + result.text)
