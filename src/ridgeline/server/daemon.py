"""Blocking work beside the event loop, in a thread that nobody waits for when the program ends.

asyncio.to_thread would not do for downloads: its threads are joined at exit, so Ctrl-C would wait for the last byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """The result of work(), which runs in a daemon thread of its own. Cancelled: the thread's result is dropped."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Callable[[], None]) -> None:
        # RuntimeError: the loop has closed in the meantime, so nobody waits for the result.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if future.done() else result())

    def run() -> None:
        try:
            value = work()
        except Exception as error:
            failure = error
            settle(lambda: future.set_exception(failure))
        else:
            settle(lambda: future.set_result(value))

    threading.Thread(target=run, name="blocking-work", daemon=True).start()
    return await future
