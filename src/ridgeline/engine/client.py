"""EngineClient: the asyncio side of a channel. Knows streams of token ids; knows no text and no HTTP."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from ridgeline.core.errors import BadRequest, EngineDied, RidgelineError, Unavailable
from ridgeline.core.types import End, NewRequest, Sampling, Scores, Timings, Tokens
from ridgeline.engine.channel import Channel, Report
from ridgeline.engine.course import SAMPLED, WAITING, WORKING, Course
from ridgeline.engine.messages import (
    Abort,
    AskProfile,
    AskTimings,
    Counters,
    EngineInfo,
    Failed,
    Out,
    Ping,
    Pong,
    Profiled,
    Progress,
    Ready,
    Refused,
    Step,
    Submit,
    TimingsNow,
)


class Delta(NamedTuple):
    """What is new of a request: token ids, and the End with the last of them. scores: in order, if it asked for any.

    A tuple, because one is made for every event of every stream and a frozen dataclass takes thrice as long to make.
    """

    tokens: list[int]
    end: End | None
    scores: tuple[Scores, ...] = ()


class Stream:
    """One request's tokens as they come. A slow reader gets several steps' tokens in one Delta; nothing is lost.

    course: where its time goes; the reader says when it writes, receive() says the rest.
    """

    __slots__ = (
        "_aborted",
        "_client",
        "_end",
        "_error",
        "_loop",
        "_scores",
        "_seen_ns",
        "_tokens",
        "_waiter",
        "course",
    )

    def __init__(self, client: EngineClient, course: Course) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self.course = course
        self._seen_ns = client.last_step_ns
        self._aborted = False
        self._tokens: list[int] = []
        self._scores: list[Scores] = []
        self._end: End | None = None
        self._error: RidgelineError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def key(self) -> int:
        return self.course.key

    async def receive(self) -> Delta:
        """The next Delta, at least one token or the End. Raises EngineDied or BadRequest instead of an End."""
        course, client = self.course, self._client
        if client.last_step_ns != self._seen_ns or course.timing_ns:
            course.came_back(client.last_step_ns - self._seen_ns)
        while not self._tokens and self._end is None:
            if self._error is not None:
                raise self._error
            course.doing = WAITING
            self._waiter = self._loop.create_future()
            await self._waiter
        self._seen_ns = client.last_step_ns
        if self._end is not None:
            course.turn(WORKING)
        else:  # written out, because this runs for every event of every stream
            course.doing = WORKING
            course.pieces += 1
            if course.pieces % SAMPLED == 1:
                course.timing_ns = time.perf_counter_ns()
        tokens, self._tokens = self._tokens, []
        if not self._scores:
            return Delta(tokens, self._end)
        scores, self._scores = tuple(self._scores), []
        return Delta(tokens, self._end, scores)

    def abort(self) -> None:
        """End the request within one step; its End comes as any other. Harmless when it is over, and when it
        was asked before."""
        if not self._aborted:
            self._aborted = True
            self._client._abort(self.course.key)

    def _push(self, tokens: list[int]) -> None:
        self._tokens += tokens
        self._wake()

    def _finish(self, end: End | None, error: RidgelineError | None = None) -> None:
        self._end, self._error = end, error
        self.course.answer(end)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class EngineClient:
    """`start`, then wait for `ready()`; then `submit`. All methods belong to one event loop's thread."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._streams: dict[int, Stream] = {}
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._keys = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[EngineInfo] | None = None
        self._ended: asyncio.Future[Failed] | None = None
        self._report: Report | None = None
        self.counters = Counters()
        self.failure: Failed | None = None
        self.last_step_ns = 0
        self.on_step: Callable[[int, int], None] = lambda _rows, _tokens: None  # somebody may want to count them

    def start(self, report: Report | None = None) -> None:
        """Start the engine; report hears how far it is, in the event loop's thread."""
        self._loop = asyncio.get_running_loop()
        self._ready, self._ended, self._report = self._loop.create_future(), self._loop.create_future(), report
        self._channel.start(self._arrived)

    async def ready(self) -> EngineInfo:
        """Wait until the engine can serve. Raises Unavailable if it could not start: why, and a traceback as a note."""
        assert self._ready is not None, "start() comes first"
        return await asyncio.shield(self._ready)

    async def ended(self) -> Failed:
        """Wait until the engine ends by itself, and say why."""
        assert self._ended is not None, "start() comes first"
        return await asyncio.shield(self._ended)

    def submit(self, prompt_ids: Tokens, max_tokens: int, sampling: Sampling, cache_salt: str = "") -> Stream:
        if self.failure is not None:
            raise EngineDied("the engine has ended; send the request again later")
        key, now = next(self._keys), time.perf_counter_ns()
        self._streams[key] = stream = Stream(self, Course(key, now))
        request = NewRequest(key, prompt_ids, max_tokens, sampling, now, cache_salt=cache_salt)
        self._channel.send(Submit.of(request))
        return stream

    async def ping(self) -> None:
        """Wait until the engine answers between two steps. Raises EngineDied; it is the caller who has a time limit."""
        key = next(self._keys)
        await self._ask(key, Ping(key))

    async def profile(
        self,
        action: Literal["start", "stop", "state"],
        *,
        max_seconds: float = 0.0,
        max_steps: int = 0,
        shapes: bool = False,
    ) -> Profiled:
        """Begin or end a trace, or see how it stands. Raises EngineDied."""
        key = next(self._keys)
        answer: Profiled = await self._ask(key, AskProfile(key, action, max_seconds, max_steps, shapes))
        return answer

    async def timings(self, keys: Sequence[int]) -> dict[int, Timings]:
        """Of requests that are not over, as far as they are, by Stream.key. Raises EngineDied."""
        key = next(self._keys)
        answer: TimingsNow = await self._ask(key, AskTimings(key, tuple(keys)))
        return answer.timings

    async def _ask(self, key: int, question: Ping | AskProfile | AskTimings) -> Any:
        if self.failure is not None:
            raise EngineDied("the engine has ended")
        self._questions[key] = answer = asyncio.get_running_loop().create_future()
        try:
            self._channel.send(question)
            return await answer
        finally:
            self._questions.pop(key, None)

    @property
    def num_in_flight(self) -> int:
        return len(self._streams)

    def close(self) -> None:
        self._channel.close()

    def _abort(self, key: int) -> None:
        if key in self._streams:
            self._channel.send(Abort(key))

    def _arrived(self, message: Out) -> None:
        """Called from the channel's thread."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._handle, message)
        except RuntimeError:
            return  # the event loop has closed: nobody is left to be told

    def _handle(self, message: Out) -> None:
        if isinstance(message, Step):
            self._deliver(message)
        elif isinstance(message, Progress):
            if self._report is not None:
                self._report(message.phase, message.done, message.total)
        elif isinstance(message, Ready):
            assert self._ready is not None
            self._ready.set_result(message.info)
        elif isinstance(message, Refused):
            if (stream := self._streams.pop(message.key, None)) is not None:
                stream._finish(None, BadRequest(message.message, message.param))
        elif isinstance(message, Pong | Profiled | TimingsNow):
            if (answer := self._questions.get(message.id)) is not None and not answer.done():
                answer.set_result(message)
        else:
            self._fail(message)

    def _deliver(self, step: Step) -> None:
        self.counters, self.last_step_ns = step.counters, time.perf_counter_ns()
        events, streams, start = step.events(), self._streams, 0
        if len(events.keys):
            self.on_step(len(events.keys), len(events.tokens))
        for scores in events.scores:
            if (stream := streams.get(scores.owner)) is not None:
                stream._scores.append(scores)
        tokens = events.tokens.tolist()
        for key, count in zip(events.keys.tolist(), events.counts.tolist(), strict=True):
            if (stream := streams.get(key)) is not None and count:
                stream._push(tokens[start : start + count])
            start += count
        for end in events.ends:
            if (stream := streams.pop(end.key, None)) is not None:
                stream._finish(end)

    def _fail(self, failed: Failed) -> None:
        assert self._ready is not None
        assert self._ended is not None
        self.failure = failed
        self._ended.set_result(failed)
        if not self._ready.done():
            error = Unavailable(failed.brief)
            if not failed.expected:
                error.add_note(failed.message)
            self._ready.set_exception(error)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream._finish(None, EngineDied("the engine ended while this request was in flight; send it again"))
        for answer in self._questions.values():
            if not answer.done():
                answer.set_exception(EngineDied("the engine has ended"))
