"""Remote: a running server answers, over OpenAI's routes. Knows HTTP; knows no model, no tokenizer and no terminal.

Every answer is a fresh connection in a loop of its own: between two answers a person thinks, and Ctrl-C then ends
exactly one of them (asyncio.run cancels it, and the server sees the connection close).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from ridgeline.core.address import check_address
from ridgeline.core.errors import BadRequest, ConfigError, NotFound, RidgelineError, Unavailable
from ridgeline.core.eventstream import EventStream
from ridgeline.talk.conversation import Conversation, least_answer, too_long
from ridgeline.talk.partner import Say

Json = dict[str, Any]
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=300)
MESSAGE_CHARS = 300
LONGEST_EVENT_BYTES = 1 << 20
CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is and what it is told with every request."""

    url: str
    api_key: str | None

    @staticmethod
    def parse(url: str, api_key: str | None) -> Address:
        """Raises ConfigError for what is no address."""
        check_address("--url", url)
        return Address(url.rstrip("/").removesuffix("/v1"), api_key)

    @asynccontextmanager
    async def request(self, method: str, path: str, body: Json | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer of status 200. Raises what tells a person what to do."""
        headers = {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"}
        try:
            async with (
                aiohttp.ClientSession(timeout=TIMEOUT, headers=headers) as session,
                session.request(method, self.url + path, json=body) as response,
            ):
                if response.status != 200:
                    raise _refusal(self, path, response.status, await response.text("utf-8", "replace"))
                yield response
        except (aiohttp.InvalidURL, UnicodeError) as error:
            raise ConfigError(f"--url {self.url}: is no address; write for example http://localhost:8000") from error
        except aiohttp.ClientConnectorError as error:
            cause = getattr(error, "os_error", None)  # an error about a certificate has none
            number = cause.errno or 0 if cause is not None else 0
            why = os.strerror(number) if number > 0 else str(cause or error)
            raise Unavailable(
                f"{self.url}: no server there ({why}); start one with `ridgeline serve` or correct --url"
            ) from error
        except TimeoutError as error:
            raise Unavailable(f"{self.url}: no answer in time") from error
        except aiohttp.ClientError as error:
            raise Unavailable(f"{self.url}: the connection was lost ({type(error).__name__})") from error


class Form(Protocol):
    """How a conversation is asked for."""

    path: str
    continues: bool

    def asked(self, conversation: Conversation) -> Json: ...
    def text(self, choice: Json) -> object: ...


class Chat:
    path, continues = "/v1/chat/completions", False

    def asked(self, conversation: Conversation) -> Json:
        return {"messages": conversation.messages()}

    def text(self, choice: Json) -> object:
        return choice["delta"].get("content")


class Plain:
    path, continues = "/v1/completions", True

    def asked(self, conversation: Conversation) -> Json:
        return {"prompt": conversation.text()}

    def text(self, choice: Json) -> object:
        return choice.get("text")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of its model. has_template: None where it does not say; context: tokens, None likewise."""

    model: str | None
    context: int | None
    has_template: bool | None


def ask_facts(address: Address) -> Facts:
    """Raises ConfigError and Unavailable."""
    return asyncio.run(_facts(address))


async def _facts(address: Address) -> Facts:
    models = await _object(address, "/v1/models")
    entries = models.get("data")
    first = entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    name, context = first.get("id"), first.get("max_model_len")
    try:
        info = await _object(address, "/tokenizer_info")
        has_template: bool | None = info.get("chat_template") is not None
    except NotFound:
        has_template = None
    return Facts(
        name if isinstance(name, str) else None,
        context if isinstance(context, int) and context > 0 else None,
        has_template,
    )


class Remote:
    """params: the request's fields besides the prompt; a field that is missing is the server's to choose."""

    def __init__(self, address: Address, facts: Facts, form: Form, max_tokens: int, params: Mapping[str, Any]) -> None:
        self._address, self._facts, self._form, self._params = address, facts, form, dict(params)
        self._max_tokens = max_tokens

    @property
    def continues(self) -> bool:
        return self._form.continues

    def answer(self, conversation: Conversation, say: Say) -> str | None:
        max_tokens = self._max_tokens
        least = max_tokens if self._facts.context is None else least_answer(self._facts.context, max_tokens)
        while True:
            try:
                return asyncio.run(self._answer(conversation, max_tokens, say))
            except BadRequest as error:
                if error.code != CONTEXT_LENGTH_EXCEEDED:
                    raise
                if max_tokens == least and not conversation.cut():
                    raise too_long(str(error)) from error
                max_tokens = least

    async def _answer(self, conversation: Conversation, max_tokens: int, say: Say) -> str | None:
        body = self._form.asked(conversation) | self._params | {"max_tokens": max_tokens, "stream": True}
        if self._facts.model is not None:
            body["model"] = self._facts.model
        stream, reason = EventStream(LONGEST_EVENT_BYTES), None
        async with self._address.request("POST", self._form.path, body) as response:
            async for data in response.content.iter_any():
                for event in stream.feed(data):
                    if event == b"[DONE]":
                        return reason
                    text, ended = self._piece(event.decode("utf-8", "replace"))
                    say(text)
                    reason = ended or reason
        raise Unavailable(f"{self._address.url}: the answer broke off")

    def _piece(self, event: str) -> tuple[str, str | None]:
        """Its text, and the reason of the end with the last one."""
        try:
            values = json.loads(event)
            if values.get("error") is not None:
                raise Unavailable(f"the server says: {_message(event)}")
            if not values["choices"]:  # counts of tokens
                return "", None
            choice = values["choices"][0]
            text, reason = self._form.text(choice), choice.get("finish_reason")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise Unavailable(f"{self._address.url}: sends what is no piece of an answer: {event[:80]}") from error
        return text if isinstance(text, str) else "", reason if isinstance(reason, str) else None


async def _object(address: Address, path: str) -> Json:
    async with address.request("GET", path) as response:
        try:
            values = json.loads(await response.read())
        except (ValueError, RecursionError):
            values = None
    if not isinstance(values, dict):
        raise Unavailable(f"{address.url}{path}: the answer is no JSON object; is this a server of models?")
    return values


def _refusal(address: Address, path: str, status: int, text: str) -> RidgelineError:
    message = _message(text)
    if status in (401, 403):
        return ConfigError(f"{address.url}: the server wants a key ({message}); put it into OPENAI_API_KEY")
    if status == 404:
        return NotFound(f"{address.url}{path}: {message}")
    if status in (400, 413, 422):
        # OpenAI's code; several servers say it in words alone.
        full = CONTEXT_LENGTH_EXCEEDED in text or "context length" in message
        return BadRequest(message, code=CONTEXT_LENGTH_EXCEEDED if full else None)
    return Unavailable(f"{address.url}: status {status}: {message}")


def _message(text: str) -> str:
    """What an error's body says, short and on one line."""
    try:
        error = json.loads(text)["error"]
        words = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        words = text
    return " ".join(str(words).split())[:MESSAGE_CHARS] or "no reason given"
