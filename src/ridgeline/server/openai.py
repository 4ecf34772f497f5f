"""OpenAI's words for our nouns, going in: a request's body -> what is asked for. Knows bytes and limits; no socket.

Nothing is guessed and nothing is ignored in silence: what would change the output is implemented or refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ridgeline.core.errors import BadRequest, NotFound
from ridgeline.core.params import SamplingParams
from ridgeline.core.types import Tokens
from ridgeline.server.chat import Conversation
from ridgeline.server.fields import CHAT, COMPLETION, MAX_GENERATIONS, SAMPLING, read_fields
from ridgeline.server.readers import brief
from ridgeline.server.service import Service

# No token of a byte-level vocabulary is longer, so a longer text cannot fit and need not be encoded to know it.
_LONGEST_TOKEN = 256

Source = str | list[int] | Conversation


@dataclass(frozen=True, slots=True)
class Ask:
    """A request's body, read.

    params: checked, with the model's defaults; their max_tokens is 1 where none shall be made (`makes` is False: the
    one is dropped). limit: the field that gave the number; None: as many as fit are made at most. best_of:
    generations for each prompt, of which n are returned. ignored: fields that changed nothing.
    """

    prompts: tuple[Source, ...]
    params: SamplingParams
    limit: str | None
    makes: bool
    n: int
    best_of: int
    echo: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool
    return_token_ids: bool
    timings: bool
    timeout_s: float | None
    cache_salt: str
    ignored: tuple[str, ...]

    @property
    def generations(self) -> int:
        """As many as the engine makes."""
        return len(self.prompts) * self.best_of

    @property
    def source(self) -> str:
        """The field that the prompts stand in."""
        return "messages" if isinstance(self.prompts[0], Conversation) else "prompt"

    @property
    def multiplier(self) -> str:
        """The field to make smaller where there are too many generations."""
        if len(self.prompts) >= self.best_of:
            return self.source
        return "n" if self.n == self.best_of else "best_of"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt ready for the engine: what it was, ids that fit the model, and its own max_tokens."""

    source: Source
    ids: Tokens
    params: SamplingParams


def parse_completion(values: dict[str, Any], service: Service) -> Ask:
    """Raises BadRequest, naming the parameter, and NotFound for another model."""
    given, ignored = read_fields(COMPLETION, values, "prompt", lenient=service.lenient)
    if (makes := given.get("max_tokens") != 0) is False:
        if given.get("min_tokens", 0) > 0:
            raise BadRequest(f"min_tokens: {given['min_tokens']} exceeds max_tokens 0", param="min_tokens")
        given["max_tokens"] = 1
    best_of = given.get("best_of", given.get("n", 1))
    if best_of < given.get("n", 1):
        raise BadRequest(f"best_of: {best_of} is less than n, {given['n']}", param="best_of")
    if best_of > given.get("n", 1) and given.get("stream", False):
        raise BadRequest("best_of: more than n cannot be streamed; the best is known at the end", param="best_of")
    echo, logprobs = given.get("echo", False), given.get("logprobs")
    scored = {"logprobs": logprobs, "prompt_logprobs": logprobs if echo else None}
    ask = _ask(given, service, given["prompt"], scored)
    return replace(ask, ignored=ignored, makes=makes, best_of=best_of, echo=echo)


def parse_chat(values: dict[str, Any], service: Service) -> Ask:
    """Raises BadRequest, naming the parameter, and NotFound for another model."""
    given, ignored = read_fields(CHAT, values, "messages", lenient=service.lenient)
    limits = {name: given[name] for name in ("max_tokens", "max_completion_tokens") if name in given}
    if len(set(limits.values())) > 1:
        raise BadRequest(
            "max_tokens: differs from max_completion_tokens, its newer name; send one of them", param="max_tokens"
        )
    if "top_logprobs" in given and not given.get("logprobs", False):
        raise BadRequest("top_logprobs: only with logprobs: true", param="top_logprobs")
    scored = {"logprobs": given.get("top_logprobs", 0) if given.get("logprobs", False) else None}
    # An answer in a conversation ends where the model ends it, so the default is what fits.
    name, longest = limits.popitem() if limits else (None, service.info.max_model_len)
    ask = _ask(given | {"max_tokens": longest}, service, (given["messages"],), scored)
    return replace(ask, ignored=ignored, limit=name)


def _ask(given: dict[str, Any], service: Service, prompts: tuple[Source, ...], scored: dict[str, Any]) -> Ask:
    """What both routes share; generations are checked against the bound here, as both can multiply them."""
    check_model(given.get("model"), service)
    stream, options = given.get("stream", False), given.get("stream_options", {})
    if "stream_options" in given and not stream:
        raise BadRequest("stream_options: only with stream: true", param="stream_options")
    include, continuous = options.get("include_usage", False), options.get("continuous_usage_stats", False)
    if continuous and not include:
        name = "stream_options.continuous_usage_stats"
        raise BadRequest(f"{name}: only with include_usage: true", param=name)
    n = given.get("n", 1)
    if len(prompts) * (most := given.get("best_of", n)) > MAX_GENERATIONS:
        name = "best_of" if "best_of" in given else "n"
        raise BadRequest(
            f"{name}: {most} for each of {len(prompts)} prompts; at most {MAX_GENERATIONS} generations in one request",
            param=name,
        )
    params = replace(
        service.defaults, **{name: given[name] for name in SAMPLING if given.get(name) is not None}, **scored
    )
    params.check_ids(service.info.vocab)
    return Ask(
        prompts=prompts,
        params=params,
        limit="max_tokens" if "max_tokens" in given else None,
        makes=True,
        n=n,
        best_of=n,
        echo=False,
        stream=stream,
        include_usage=include,
        continuous_usage=continuous,
        return_token_ids=given.get("return_token_ids", False),
        timings=given.get("timings", False),
        timeout_s=given.get("timeout_s"),
        cache_salt=given.get("cache_salt", ""),
        ignored=(),
    )


def check_model(name: str | None, service: Service) -> None:
    """Raises NotFound for a model that is not served here."""
    if name is not None and name != service.name:
        raise NotFound(
            f"model: '{brief(name, 80)}' is not served here; this is '{service.name}'",
            param="model",
            code="model_not_found",
        )


def prepare(ask: Ask, service: Service) -> list[Prompt]:
    """Encode and fit every prompt. Raises BadRequest, naming the prompt of a list by its place in it."""
    prompts = []
    for index, source in enumerate(ask.prompts):
        name = ask.source
        shown = name if len(ask.prompts) == 1 else f"{name}[{index}]"
        ids = _ids(name, shown, source, service)
        prompts.append(Prompt(source, ids, _fitted(shown, len(ids), ask, service.info.max_model_len)))
    return prompts


def render(conversation: Conversation, service: Service) -> str:
    """The conversation as the model knows it. Raises BadRequest where the model knows none."""
    if service.chat is None:
        raise BadRequest(
            f"messages: the model '{service.name}' has no chat template, so it takes no conversation; "
            "send a prompt to /v1/completions instead",
            param="messages",
            code="no_chat_template",
        )
    return service.chat.render(conversation.messages, add_generation_prompt=not conversation.closed)


def _ids(name: str, shown: str, source: Source, service: Service) -> Tokens:
    longest, vocab = service.info.max_model_len, service.info.vocab
    if isinstance(source, list):
        if not all(0 <= one < vocab for one in source):
            raise BadRequest(f"{shown}: a token id is out of range; ids are 0 to {vocab - 1}", param=name)
        ids = np.asarray(source, np.int32)
    else:
        text = render(source, service) if isinstance(source, Conversation) else source
        ids = encode_text(name, shown, text, service, add_special_tokens=isinstance(source, str))
    if len(ids) == 0:
        raise BadRequest(f"{shown}: is empty; the model needs at least one token to continue", param=name)
    if len(ids) >= longest:
        raise _too_long(name, f"{shown}: {len(ids)} tokens", longest)
    return ids


def encode_text(name: str, shown: str, text: str, service: Service, *, add_special_tokens: bool) -> Tokens:
    """Token ids. Raises BadRequest, before any work, for a text of which it is clear that it does not fit."""
    longest = service.info.max_model_len
    if len(text) > longest * _LONGEST_TOKEN:
        raise _too_long(name, f"{shown}: {len(text)} characters", longest)
    return service.tokenizer.encode(text, add_special_tokens=add_special_tokens)


def _too_long(name: str, what: str, longest: int) -> BadRequest:
    return BadRequest(
        f"{what}, but the model takes at most {longest}, the new ones included",
        param=name,
        code="context_length_exceeded",
    )


def _fitted(shown: str, length: int, ask: Ask, longest: int) -> SamplingParams:
    room = longest - length
    if ask.limit is None:
        return replace(ask.params, max_tokens=min(ask.params.max_tokens, room))
    if ask.params.max_tokens > room:
        raise BadRequest(
            f"{ask.limit}: {ask.params.max_tokens} new tokens after the {length} of {shown} exceed the model's "
            f"{longest}; at most {room} fit",
            param=ask.limit,
            code="context_length_exceeded",
        )
    return ask.params
