"""Server-sent events, from bytes as they come to the data of each event. Knows no request and no answer."""

from __future__ import annotations

from collections.abc import Iterator

from ridgeline.core.errors import Unavailable

MAX_LINE_BYTES = 2**20


class EventLines:
    """feed bytes, get the data of the events that they complete. An event has one line of data, as OpenAI's have."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """Raises Unavailable for a line without an end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise Unavailable(f"the server sends a line of more than {MAX_LINE_BYTES:,} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[len(b"data:") :].decode("utf-8", "replace").strip()
