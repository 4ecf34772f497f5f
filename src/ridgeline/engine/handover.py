"""Handover: an object over a pipe to a running process of this one's, with the open files in it. Knows no such object.

multiprocessing would do it through a listening socket in the file system and a thread, which a process that runs where
nothing can be written does not have.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

_COUNT_BYTES = 4


class SharedFile:
    """A descriptor that goes along with whatever holds it. Whoever takes the number owns it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Callable[[Any], SharedFile], tuple[Any]]:
        """To a process while it is started."""
        return _detached, (reduction.DupFd(self.number),)


def _detached(file: Any) -> SharedFile:
    return SharedFile(file.detach())


class _Pickler(reduction.ForkingPickler):
    def __init__(self, into: io.BytesIO) -> None:
        super().__init__(into)
        self.files: list[int] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, SharedFile):
            return None
        self.files.append(value.number)
        return len(self.files) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, files: list[int]) -> None:
        super().__init__(io.BytesIO(data))
        self._files = files

    def persistent_load(self, number: int) -> SharedFile:
        return SharedFile(self._files[number])


def hand_over(value: Any, connection: Connection, process: int) -> None:
    """process: the id of the one at the other end. Raises OSError if it has ended."""
    into = io.BytesIO()
    pickler = _Pickler(into)
    pickler.dump(value)
    connection.send_bytes(len(pickler.files).to_bytes(_COUNT_BYTES, "little") + into.getvalue())
    for file in pickler.files:
        reduction.send_handle(connection, file, process)


def taken_over(connection: Connection) -> Callable[[], Any]:
    """What was handed over: it has come, and is made when it is asked for. Raises EOFError if nothing comes."""
    data = connection.recv_bytes()
    if not data:
        raise EOFError
    count = int.from_bytes(data[:_COUNT_BYTES], "little")
    files = [reduction.recv_handle(connection) for _ in range(count)]
    return _Unpickler(data[_COUNT_BYTES:], files).load
