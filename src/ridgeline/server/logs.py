"""Logs: lines on stderr, as text or JSON; one for every request. Knows what a line looks like; knows no request.

Clients choose what stands in some values, so no value can end a line or colour a terminal: in text everything that is
not printable is escaped, in JSON the encoder does it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from ridgeline.core.options import ServerOptions

MAX_VALUE = 200  # characters of a value in a text line

journal = logging.getLogger("ridgeline.requests")


class Text(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info message name=value ...`; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname.lower()} {_lines(record.getMessage())}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Json(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the record's own fields, and traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage(), **_fields(record)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


FORMATS: dict[str, type[logging.Formatter]] = {"text": Text, "json": Json}


def configure(options: ServerOptions) -> None:
    """Send the log of the whole program to stderr; of libraries only what is a warning."""
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATS[options.log_format]())
    logging.getLogger().addHandler(handler)
    logging.getLogger("ridgeline").setLevel(options.log_level.upper())


def tell(message: str, fields: Mapping[str, Any], level: int = logging.INFO) -> None:
    """A line of the journal; fields that are None are left out."""
    if journal.isEnabledFor(level):
        present = {name: value for name, value in fields.items() if value is not None}
        journal.log(level, "%s", message, extra={"fields": present})


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _lines(message: str) -> str:
    """Our own messages may have several lines (a traceback of the engine), but no control character."""
    return "".join(char if char.isprintable() or char == "\n" else _escaped(char) for char in message)


def _shown(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    text = text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."
    # A backslash too: one before the closing quote would let the value go on into the next.
    safe = "".join(char if char.isprintable() and char not in '"\\' else _escaped(char) for char in text)
    return f'"{safe}"' if " " in safe or "=" in safe or not safe else safe


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode() if char != '"' else '\\"'
