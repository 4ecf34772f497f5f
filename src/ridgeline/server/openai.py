"""OpenAI's words for our nouns, going in: a request's body -> what is asked for. Knows bytes and limits; no socket.

Nothing is guessed and nothing is ignored in silence: what would change the output is implemented or refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from ridgeline.core.errors import BadRequest, NotFound
from ridgeline.core.params import SamplingParams
from ridgeline.core.types import Tokens
from ridgeline.server.fields import IGNORED, SAMPLING, read_fields
from ridgeline.server.service import Service

# No token of a byte-level vocabulary is longer, so a longer text cannot fit and need not be encoded to know it.
_LONGEST_TOKEN = 256

_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Ask:
    """A request's body, read. params: checked, with the model's defaults; ignored: fields that changed nothing."""

    model: str | None
    prompts: tuple[str | list[int], ...]
    params: SamplingParams
    max_tokens_given: bool
    stream: bool
    include_usage: bool
    return_token_ids: bool
    timings: bool
    timeout_s: float | None
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt ready for the engine: ids that fit the model, and its own max_tokens."""

    ids: Tokens
    params: SamplingParams


def parse(body: bytes, defaults: SamplingParams) -> Ask:
    """Raises BadRequest, naming the parameter."""
    values = read_fields(_json_object(body))
    if "prompt" not in values:
        raise BadRequest("prompt: is required", param="prompt", code="missing_required_parameter")
    stream = values.get("stream", False)
    if "stream_options" in values and not stream:
        raise BadRequest("stream_options: only with stream: true", param="stream_options")
    return Ask(
        model=values.get("model"),
        prompts=values["prompt"],
        params=replace(defaults, **{name: values[name] for name in SAMPLING if values.get(name) is not None}),
        max_tokens_given="max_tokens" in values,
        stream=stream,
        include_usage=values.get("stream_options", {}).get("include_usage", False),
        return_token_ids=values.get("return_token_ids", False),
        timings=values.get("timings", False),
        timeout_s=values.get("timeout_s"),
        ignored=tuple(name for name in IGNORED if name in values),
    )


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        values = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadRequest(f"the body is not valid JSON in UTF-8: {reason}", code="invalid_json") from None
    if not isinstance(values, dict):
        raise BadRequest("the body must be a JSON object", code="invalid_json")
    return values


def check_model(name: str | None, service: Service) -> None:
    """Raises NotFound for a model that is not served here."""
    if name is not None and name != service.name:
        raise NotFound(
            f"model: '{name[:80]}' is not served here; this is '{service.name}'", param="model", code="model_not_found"
        )


def text_size(ask: Ask) -> int:
    """Characters that have to be encoded."""
    return sum(len(prompt) for prompt in ask.prompts if isinstance(prompt, str))


def prepare(ask: Ask, service: Service) -> list[Prompt]:
    """Encode and fit every prompt. Raises BadRequest, naming the prompt of a list by its place in it."""
    prompts = []
    for index, prompt in enumerate(ask.prompts):
        name = "prompt" if len(ask.prompts) == 1 else f"prompt[{index}]"
        ids = _ids(name, prompt, service)
        prompts.append(Prompt(ids, _fitted(name, len(ids), ask, service.info.max_model_len)))
    return prompts


def _ids(name: str, prompt: str | list[int], service: Service) -> Tokens:
    longest, vocab = service.info.max_model_len, service.info.vocab
    if isinstance(prompt, str):
        if len(prompt) > longest * _LONGEST_TOKEN:
            raise _too_long(f"{name}: {len(prompt)} characters", longest)
        ids = service.tokenizer.encode(prompt)
    elif not all(0 <= one < vocab for one in prompt):
        raise BadRequest(f"{name}: a token id is out of range; ids are 0 to {vocab - 1}", param="prompt")
    else:
        ids = np.asarray(prompt, np.int32)
    if len(ids) == 0:
        raise BadRequest(f"{name}: is empty; the model needs at least one token to continue", param="prompt")
    if len(ids) >= longest:
        raise _too_long(f"{name}: {len(ids)} tokens", longest)
    return ids


def _too_long(what: str, longest: int) -> BadRequest:
    return BadRequest(
        f"{what}, but the model takes at most {longest}, the new ones included",
        param="prompt",
        code="context_length_exceeded",
    )


def _fitted(name: str, length: int, ask: Ask, longest: int) -> SamplingParams:
    room = longest - length
    if not ask.max_tokens_given:
        return replace(ask.params, max_tokens=min(ask.params.max_tokens, room))
    if ask.params.max_tokens > room:
        raise BadRequest(
            f"max_tokens: {ask.params.max_tokens} new tokens after the {length} of {name} exceed the model's "
            f"{longest}; at most {room} fit",
            param="max_tokens",
            code="context_length_exceeded",
        )
    return ask.params
