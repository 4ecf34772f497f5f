"""Event stream: server-sent events, from bytes as they come to the data of each. Knows nothing of what the data mean.

The format: https://html.spec.whatwg.org/#event-stream-interpretation, with line ends \\n and \\r\\n.
"""

from __future__ import annotations

from ridgeline.core.errors import Unavailable


class EventTooLong(Unavailable):
    """The other side sends an event that does not end."""


class EventStream:
    """feed bytes, get the data of the events that they complete. longest: bytes of an event that has not ended yet.

    An event costs a search for its end (under a microsecond): a load reads tens of thousands a second.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Events without data are left out: they are comments, by which servers keep a connection open.

        Raises EventTooLong.
        """
        *events, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
        if len(self._rest) > self._longest:
            raise EventTooLong(f"the server sends an event of more than {self._longest:,} bytes")
        return [found for event in events if (found := _data(event)) is not None]


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
