"""Events: a completion as a stream of server-sent events, read as it comes. Knows bytes; knows no socket and no clock.

An event costs one typed decoding (a microsecond), so that a client keeps up with servers that make tens of thousands of
tokens a second.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ridgeline.bench.records import Reply, ServerTimings
from ridgeline.core.eventstream import EventStream, EventTooLong
from ridgeline.core.plaintext import harmless

LONGEST_EVENT_BYTES = 16 << 20


class NoCompletion(Exception):
    """The stream is not what a completion looks like, or ends too early."""


class StreamError(Exception):
    """The server reported an error in the stream. word: its code or type."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word = word


class _Choice(msgspec.Struct):
    text: str | None = None
    finish_reason: str | None = None
    timings: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Events:
    """feed(bytes as they come), then reply().

    An event counts when it brings text: one without shows a reader nothing.
    """

    def __init__(self) -> None:
        self._stream = EventStream(LONGEST_EVENT_BYTES)
        self._event_ms: list[float] = []
        self._usage: _Usage | None = None
        self._timings: ServerTimings | None = None
        self._whole = False

    def feed(self, data: bytes, now_ms: float) -> None:
        """Raises StreamError and NoCompletion."""
        try:
            events = self._stream.feed(data)
        except EventTooLong as error:
            raise NoCompletion(str(error)) from error
        for event in events:
            self._take(event, now_ms)

    def reply(self) -> Reply:
        """Raises NoCompletion where the stream ended before its completion did."""
        if not self._whole:
            raise NoCompletion("it ended without a finish_reason or [DONE]")
        usage = self._usage
        return Reply(
            prompt_tokens=usage.prompt_tokens if usage else 0,
            tokens=usage.completion_tokens if usage else len(self._event_ms),
            timings=self._timings,
            event_ms=tuple(self._event_ms),
            counted=usage is not None,
        )

    def _take(self, data: bytes, now_ms: float) -> None:
        if data == b"[DONE]":
            self._whole = True
            return
        try:
            chunk = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise NoCompletion(f"an event that is no chunk: {error}") from error
        if chunk.error is not None:
            raise _stream_error(chunk.error)
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices:
            if choice.text:
                self._event_ms.append(now_ms)
            if choice.finish_reason is not None:
                self._whole = True
                if choice.timings is not None:
                    self._timings = _timings(choice.timings)


def _stream_error(error: Any) -> StreamError:
    if not isinstance(error, dict):
        return StreamError("", str(error))
    return StreamError(harmless(str(error.get("code") or error.get("type") or "")), str(error.get("message")))


def _timings(body: Any) -> ServerTimings:
    try:
        return ServerTimings.parse(body)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise NoCompletion(f"timings that are not Ridgeline's ({type(error).__name__}: {error})") from error
