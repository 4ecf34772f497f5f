"""The answer to one request from its prompts to its last byte. Knows streams of tokens and ASGI; knows no parsing.

Everything that can end an answer is one wait: the work is done, the client is gone, or the server stops. Whichever
comes first, what still runs in the engine is aborted. Completions and conversations differ in their Shape alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from starlette.types import Receive, Send

from ridgeline.core.errors import RidgelineError, Stopping
from ridgeline.core.params import derive_seed
from ridgeline.engine.course import WAITING, WORKING, WRITING
from ridgeline.server.answers import (
    DONE,
    ChatShape,
    Chunks,
    Heading,
    Json,
    Shape,
    encode_json,
    ignored_header,
    timings_object,
    usage,
    usage_chunk,
    whole_answer,
)
from ridgeline.server.choice import Choice
from ridgeline.server.errors import error_content
from ridgeline.server.openai import Ask, Prompt
from ridgeline.server.service import Service
from ridgeline.server.tasks import finished, gone
from ridgeline.server.visit import Visit
from ridgeline.server.words import chat_logprobs, completion_logprobs
from ridgeline.server.writer import Writer
from ridgeline.text.stream import StopStrings

_MANY_WORDS = 4096  # tokens of an answer, and of those beside them

T = TypeVar("T")


class Answer:
    """An ASGI response. What goes wrong before the first byte is raised, and becomes a status; later it is an event."""

    def __init__(
        self,
        ask: Ask,
        prompts: Sequence[Prompt],
        service: Service,
        heading: Heading,
        shape: Shape,
        visit: Visit,
    ) -> None:
        self._ask, self._prompts, self._service, self._heading, self._shape = ask, prompts, service, heading, shape
        self._visit, self._settled = visit, False
        self._groups: list[list[Choice]] = []  # by prompt
        told = ignored_header(ask.ignored).items()
        self._headers = [(b"cache-control", b"no-store"), *((name.encode(), value.encode()) for name, value in told)]

    async def respond(self, receive: Receive, send: Send, stopping: asyncio.Future[None]) -> None:
        writer = Writer(send, self._headers)
        self._submit()
        work = asyncio.create_task(self._stream(writer) if self._ask.stream else self._whole(writer))
        left = asyncio.create_task(gone(receive))
        try:
            ends: set[asyncio.Future[Any]] = {work, left, stopping}
            await asyncio.wait(ends, timeout=self._visit.left_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            elif stopping.done():
                raise Stopping("the server is stopping; this request did not end within its time to drain")
            elif not left.done():
                raise self._visit.timed_out()
        except RidgelineError as error:
            self._abort()  # first: a client that does not read would hold its slots until it is cut off
            await finished(work)
            if not writer.started:
                raise
            self._visit.failed(error)
            self._settle()
            await writer.event(b"data: " + encode_json(error_content(error)) + b"\n\n")
            await writer.end()
        finally:
            self._abort()
            await finished(work)
            self._settle()
            await finished(left)

    def _settle(self) -> None:
        """Into the books, before the last byte, so that a client never sees itself under way after its answer.

        A choice without an End was aborted, or its engine died.
        """
        if self._settled:
            return
        self._settled = True
        for index, choice in enumerate(self._choices):
            reason = "abort" if choice.end is None else choice.finish_reason
            self._visit.ended(index, len(choice.ids), reason, choice.end)

    @property
    def _choices(self) -> list[Choice]:
        return [choice for group in self._groups for choice in group]

    def _submit(self) -> None:
        """Every generation is a request of its own to the engine; the first of a prompt has the request's own seed."""
        ask, stops = self._ask, StopStrings(self._ask.params.stop)
        try:
            for prompt in self._prompts:
                self._groups.append([])
                base = self._service.seeded(prompt.params)
                seed = base.seed
                assert seed is not None
                if base.logprobs is None and ask.best_of > ask.n:
                    base = replace(base, logprobs=0)
                for index in range(ask.best_of):
                    params = replace(base, seed=derive_seed(seed, index)) if index else base
                    stream = self._service.submit(prompt.ids, params, ask.cache_salt)
                    began = partial(self._visit.began, len(self._choices))
                    choice = Choice(prompt, params, stream, self._service.tokenizer, stops, began, makes=ask.makes)
                    self._groups[-1].append(choice)
                    self._visit.asked(stream.course, choice.ids)
        except RidgelineError:
            self._abort()
            raise

    def _abort(self) -> None:
        for choice in self._choices:
            choice.stream.abort()

    def _turn(self, doing: int) -> None:
        """What is done now is done for all of them."""
        for choice in self._choices:
            choice.stream.course.turn(doing)

    async def _whole(self, writer: Writer) -> None:
        await _together([choice.run() for choice in self._choices])
        self._turn(WORKING)
        scored = (self._ask.params.logprobs or 0) + (self._ask.params.prompt_logprobs or 0) + 1
        words = scored * sum(len(choice.prompt.ids) * self._ask.echo + len(choice.ids) for choice in self._choices)
        # In a thread what would keep the streams of others waiting for longer than a few milliseconds.
        body = await asyncio.to_thread(self._written) if words > _MANY_WORDS else self._written()
        self._settle()
        self._turn(WRITING)
        await writer.whole(body)

    def _written(self) -> bytes:
        """The whole answer; every choice has ended, so nobody changes them any more."""
        best = [choice for group in self._groups for choice in _likeliest(group, self._ask.n)]
        choices = [
            {
                "index": index,
                **self._shape.choice(self._echoed(choice) + choice.text),
                "logprobs": self._logprobs(choice, 0),
                "finish_reason": choice.finish_reason,
                **self._prompt_ids(choice),
                **self._ids(choice.ids),
                **self._timings(choice),
            }
            for index, choice in enumerate(best)
        ]
        return whole_answer(self._heading, self._shape, choices, self._usage())

    async def _stream(self, writer: Writer) -> None:
        await _together([self._events(index, choice, writer) for index, choice in enumerate(self._choices)])
        self._turn(WRITING)
        if self._ask.include_usage:
            await writer.event(usage_chunk(self._heading, self._shape, self._usage()))
        self._settle()
        await writer.event(DONE)
        await writer.end()

    async def _events(self, index: int, choice: Choice, writer: Writer) -> None:
        ask, course = self._ask, choice.stream.course
        chunks = Chunks(self._heading, index, self._shape, usage_null=ask.include_usage)
        # Whether a chunk in the middle is nothing but text.
        plain = ask.params.logprobs is None and not ask.return_token_ids and not ask.continuous_usage
        text, ids = await choice.advance()
        extra = self._prompt_ids(choice)
        if self._shape.opening is not None:
            opening = chunks.opening(self._shape.opening | extra, self._usage_so_far())
            course.turn(WRITING)
            await writer.event(opening)
            course.turn(WORKING)
            extra = {}
        text = self._echoed(choice) + text
        while choice.end is None:
            if plain:
                if text:
                    chunk = chunks.text(text)
                    course.doing = WRITING
                    await writer.event(chunk)
            elif text or ids:
                told = extra | self._ids(ids)
                scores = self._logprobs(choice, len(choice.ids) - len(ids))
                chunk = chunks.full(text, scores, None, told, self._usage_so_far())
                course.doing = WRITING
                await writer.event(chunk)
                extra = {}
            text, ids = await choice.advance()
        told = extra | self._ids(ids) | self._timings(choice)
        scores = self._logprobs(choice, len(choice.ids) - len(ids))
        chunk = chunks.full(text, scores, choice.finish_reason, told, self._usage_so_far())
        course.turn(WRITING)
        await writer.event(chunk)
        course.turn(WAITING)

    def _usage(self) -> Json:
        """A prompt counts once however many choices it has; all generations count, also those that are not returned."""
        prompt = sum(len(prompt.ids) for prompt in self._prompts)
        cached = sum(group[0].end.cached for group in self._groups if group[0].end is not None)
        return usage(prompt, sum(len(choice.ids) for choice in self._choices), cached)

    def _usage_so_far(self) -> Json | None:
        return self._usage() if self._ask.continuous_usage else None

    def _echoed(self, choice: Choice) -> str:
        return choice.prompt_text() if self._ask.echo else ""

    def _logprobs(self, choice: Choice, first: int) -> Json | None:
        """Of the choice's tokens from the first on; with echo the prompt's stand before the very first."""
        if self._ask.params.logprobs is None:
            return None
        tokenizer = self._service.tokenizer
        ids, scores = choice.ids[first:], choice.scores.output[first : len(choice.ids)]
        if isinstance(self._shape, ChatShape):
            return chat_logprobs(tokenizer, scores)
        if not self._ask.echo or not choice.opens():
            return completion_logprobs(tokenizer, ids, scores, choice.offsets.of_output(ids))
        prompt_ids = choice.prompt.ids.tolist()
        offsets = choice.offsets.of_prompt(prompt_ids) + choice.offsets.of_output(ids)
        return completion_logprobs(tokenizer, prompt_ids + ids, [None, *choice.scores.prompt, *scores], offsets)

    def _prompt_ids(self, choice: Choice) -> Json:
        return {"prompt_token_ids": choice.prompt.ids.tolist()} if self._ask.return_token_ids else {}

    def _ids(self, ids: list[int]) -> Json:
        return {"token_ids": ids} if self._ask.return_token_ids else {}

    def _timings(self, choice: Choice) -> Json:
        if not self._ask.timings or choice.end is None:
            return {}
        account = self._visit.ledger(choice.stream.course)
        return {"timings": timings_object(choice.end, account, self._service.info.kv_block_bytes)}


def _likeliest(group: list[Choice], n: int) -> list[Choice]:
    """The n with the highest mean log-probability, the best first; all of them in their order if n are there."""
    return group if len(group) == n else sorted(group, key=lambda choice: -choice.mean_logprob)[:n]


async def _together(parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them at once; the first failure ends the others."""
    if len(parts) == 1:
        return [await parts[0]]
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            await finished(task)
