"""Server-sent events, however their bytes are cut."""

from __future__ import annotations

import pytest

from ridgeline.core.eventstream import EventStream, EventTooLong


def test_events_may_be_cut_anywhere() -> None:
    data = "data: Grüße\r\n\r\n: comment\n\nevent: x\ndata:two\ndata: lines\n\n".encode()
    for cut in range(len(data)):
        stream = EventStream(100)
        assert [*stream.feed(data[:cut]), *stream.feed(data[cut:])] == ["Grüße".encode(), b"two\nlines"]


def test_an_event_that_does_not_end_is_refused() -> None:
    stream = EventStream(100)
    assert stream.feed(b"x" * 100) == []
    with pytest.raises(EventTooLong, match="more than 100 bytes"):
        stream.feed(b"x")
