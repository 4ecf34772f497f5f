"""Tasks beside an answer: how a client's leaving is seen, and how a task ends without a trace. Knows no answer."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive


async def gone(receive: Receive) -> None:
    """Until the client has left. The body was read, or there is none, so nothing else can come."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def finished(task: asyncio.Task[Any]) -> None:
    """Cancel what still runs, and take its result, so that nothing is left behind."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
