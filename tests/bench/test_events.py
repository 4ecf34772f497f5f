"""A stream read as bytes come: whatever is cut where, the same completion."""

from __future__ import annotations

import pytest

from ridgeline.bench.events import Events, NoCompletion, StreamError
from tests.bench.fake_server import DONE, chunk, event

USAGE = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 4}})


def test_events_are_stamped_when_they_come_whole() -> None:
    data = b": a comment\n\n" + chunk("a") + chunk("") + chunk("b") + chunk("c", "length") + USAGE + DONE
    for cut in range(1, len(data)):
        events = Events()
        events.feed(data[:cut], 10.0)
        events.feed(data[cut:], 25.0)
        reply = events.reply()
        whole = sum(data[:cut].count(b'"text": "%s"' % text) for text in (b"a", b"b", b"c"))
        assert len(reply.event_ms) == 3, "an event without text shows nothing"
        assert whole - 1 <= reply.event_ms.count(10.0) <= whole
        assert (reply.prompt_tokens, reply.tokens, reply.counted) == (7, 4, True)


def test_carriage_returns_and_fields_of_several_lines() -> None:
    events = Events()
    for byte in b'event: message\r\ndata: {"choices":\r\ndata:[{"text":"a","finish_reason":"stop"}]}\r\n\r\n':
        events.feed(bytes([byte]), 1.0)
    assert len(events.reply().event_ms) == 1


def test_without_usage_events_stand_for_tokens() -> None:
    events = Events()
    events.feed(chunk("a") + chunk("b", "stop") + DONE, 1.0)
    reply = events.reply()
    assert (reply.tokens, reply.prompt_tokens, reply.counted) == (2, 0, False)


def test_an_error_in_the_stream_has_the_servers_word() -> None:
    events = Events()
    with pytest.raises(StreamError, match="the engine died") as caught:
        events.feed(chunk("a") + event({"error": {"message": "the engine died", "code": "engine_died"}}), 1.0)
    assert caught.value.word == "engine_died"


@pytest.mark.parametrize("data", [b"data: <html>\n\n", b'data: {"choices": 3}\n\n', b'data: {"usage": {}}\n\n'])
def test_what_is_no_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(NoCompletion):
        Events().feed(data, 1.0)


def test_a_stream_that_ends_early_is_no_completion() -> None:
    events = Events()
    events.feed(chunk("a") + chunk("b"), 1.0)
    with pytest.raises(NoCompletion, match="finish_reason"):
        events.reply()
