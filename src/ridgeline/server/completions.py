"""One completion request from its prompts to its last byte. Knows streams of tokens and ASGI; knows no parsing.

Everything that can end an answer is one wait: the work is done, the client is gone, or the server stops. Whichever
comes first, what still runs in the engine is aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from starlette.types import Receive, Send

from ridgeline.core.errors import RidgelineError, Stopping
from ridgeline.core.types import End
from ridgeline.engine.client import Stream
from ridgeline.server.answers import (
    DONE,
    Chunks,
    Heading,
    Json,
    completion,
    encode_json,
    timings_object,
    usage,
    usage_chunk,
)
from ridgeline.server.errors import error_content
from ridgeline.server.openai import Ask, Prompt
from ridgeline.server.service import Service
from ridgeline.server.visit import Visit
from ridgeline.server.writer import Writer
from ridgeline.text.stream import StopStrings, TextStream
from ridgeline.text.tokenizer import Tokenizer

T = TypeVar("T")


class Choice:
    """One prompt's text as it comes. ids: the tokens that count; end: set with the last of them. began: called once."""

    def __init__(
        self, prompt: Prompt, stream: Stream, tokenizer: Tokenizer, stops: StopStrings, began: Callable[[], None]
    ) -> None:
        self.prompt, self.stream = prompt, stream
        self._began: Callable[[], None] | None = began
        self.ids: list[int] = []
        self.end: End | None = None
        self._text = TextStream(tokenizer, stops)

    async def advance(self) -> tuple[str, list[int]]:
        """What is new: text that no later token can change, and token ids. Raises EngineDied and BadRequest.

        A stop string ends the request in the engine; tokens that were made meanwhile are dropped. The End is waited for
        even then, as it has the timings.
        """
        delta = await self.stream.receive()
        if self._began is not None:
            self._began()
            self._began = None
        text, ids, self.end = "", [], delta.end
        if self._text.stopped is None:
            text = self._text.push(delta.tokens)
            ids = delta.tokens[: self._text.num_tokens - len(self.ids)]
            self.ids += ids
            if self._text.stopped is not None:
                self.stream.abort()
        if delta.end is not None:
            text += self._text.flush()
        return text, ids

    async def run(self) -> str:
        """The whole text."""
        parts = []
        while self.end is None:
            parts.append((await self.advance())[0])
        return "".join(parts)

    @property
    def finish_reason(self) -> str:
        assert self.end is not None
        return "stop" if self._text.stopped is not None else self.end.reason


class Answer:
    """An ASGI response. What goes wrong before the first byte is raised, and becomes a status; later it is an event."""

    def __init__(self, ask: Ask, prompts: Sequence[Prompt], service: Service, heading: Heading, visit: Visit) -> None:
        self._ask, self._prompts, self._service, self._heading = ask, prompts, service, heading
        self._visit = visit
        self._choices: list[Choice] = []
        self._settled = False
        self._headers = [(b"cache-control", b"no-store")]
        if ask.ignored:
            self._headers.append((b"x-ridgeline-ignored", ", ".join(ask.ignored).encode()))

    async def respond(self, receive: Receive, send: Send, stopping: asyncio.Future[None]) -> None:
        writer = Writer(send, self._headers)
        self._submit()
        work = asyncio.create_task(self._stream(writer) if self._ask.stream else self._whole(writer))
        gone = asyncio.create_task(_gone(receive))
        try:
            ends: set[asyncio.Future[Any]] = {work, gone, stopping}
            await asyncio.wait(ends, timeout=self._visit.left_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            elif stopping.done():
                raise Stopping("the server is stopping; this request did not end within its time to drain")
            elif not gone.done():
                raise self._visit.timed_out()
        except RidgelineError as error:
            await _finished(work)
            if not writer.started:
                raise
            self._visit.failed(error)
            self._settle()
            await writer.event(b"data: " + encode_json(error_content(error)) + b"\n\n")
            await writer.end()
        finally:
            for choice in self._choices:
                choice.stream.abort()
            await _finished(work)
            self._settle()
            await _finished(gone)

    def _settle(self) -> None:
        """Into the books, before the last byte, so that a client never sees itself under way after its answer.

        A choice without an End was aborted, or its engine died.
        """
        if self._settled:
            return
        self._settled = True
        for choice in self._choices:
            reason = "abort" if choice.end is None else choice.finish_reason
            self._visit.ended(len(choice.ids), reason, choice.end)

    def _submit(self) -> None:
        stops = StopStrings(self._ask.params.stop)
        try:
            for index, prompt in enumerate(self._prompts):
                stream = self._service.submit(prompt.ids, prompt.params)
                began = partial(self._visit.began, index)
                self._choices.append(Choice(prompt, stream, self._service.tokenizer, stops, began))
        except RidgelineError:
            for choice in self._choices:
                choice.stream.abort()
            raise

    async def _whole(self, writer: Writer) -> None:
        texts = await _together([choice.run() for choice in self._choices])
        choices = [
            {"index": index, "text": text, "finish_reason": choice.finish_reason, "logprobs": None}
            | self._prompt_ids(choice)
            | self._ids(choice.ids)
            | self._timings(choice)
            for index, (choice, text) in enumerate(zip(self._choices, texts, strict=True))
        ]
        self._settle()
        await writer.whole(completion(self._heading, choices, self._usage()))

    async def _stream(self, writer: Writer) -> None:
        await _together([self._events(index, choice, writer) for index, choice in enumerate(self._choices)])
        if self._ask.include_usage:
            await writer.event(usage_chunk(self._heading, self._usage()))
        self._settle()
        await writer.event(DONE)
        await writer.end()

    async def _events(self, index: int, choice: Choice, writer: Writer) -> None:
        chunks = Chunks(self._heading, index, usage_null=self._ask.include_usage)
        extra = self._prompt_ids(choice)
        while choice.end is None:
            text, ids = await choice.advance()
            extra |= self._ids(ids)
            if choice.end is not None:
                break
            if extra and ids:
                await writer.event(chunks.text_with(text, extra))
                extra = {}
            elif text:
                await writer.event(chunks.text(text))
        await writer.event(chunks.last(text, choice.finish_reason, extra | self._timings(choice)))

    def _usage(self) -> Json:
        prompt = sum(len(choice.prompt.ids) for choice in self._choices)
        cached = sum(choice.end.cached for choice in self._choices if choice.end is not None)
        return usage(prompt, sum(len(choice.ids) for choice in self._choices), cached)

    def _prompt_ids(self, choice: Choice) -> Json:
        return {"prompt_token_ids": choice.prompt.ids.tolist()} if self._ask.return_token_ids else {}

    def _ids(self, ids: list[int]) -> Json:
        return {"token_ids": ids} if self._ask.return_token_ids else {}

    def _timings(self, choice: Choice) -> Json:
        if not self._ask.timings or choice.end is None:
            return {}
        return {"timings": timings_object(choice.end, self._service.info.kv_block_bytes)}


async def _gone(receive: Receive) -> None:
    """Until the client has left. The body was read, so nothing else can come."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _together(parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them at once; the first failure ends the others."""
    if len(parts) == 1:
        return [await parts[0]]
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            await _finished(task)


async def _finished(task: asyncio.Task[Any]) -> None:
    """Cancel what still runs, and take its result, so that nothing is left behind."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
