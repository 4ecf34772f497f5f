"""Readiness: does the engine make progress? Knows steps and pings; knows no HTTP.

A running process proves nothing. A step in the last ten seconds does. When there was none, because nobody asked for
anything, because a policy keeps its window open or because the engine hangs, a ping tells which: the loop answers
between two steps, so an answer means that the last step has returned and that the next request will be taken. It costs
no step, waits in no queue and takes no seed. A step that runs for longer than the ping may take counts as a stall.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ridgeline.core.errors import EngineDied
from ridgeline.server.service import Service

FRESH_NS = 10 * 10**9
PING_TIMEOUT_S = 5.0


class Readiness:
    """clock: the nanoseconds that the engine client stamps steps with."""

    def __init__(self, clock: Callable[[], int] = time.perf_counter_ns, timeout_s: float = PING_TIMEOUT_S) -> None:
        self._clock, self._timeout_s = clock, timeout_s

    async def progressing(self, service: Service) -> bool:
        """Whether a step was made in the last ten seconds, or the engine answers between steps now."""
        last_ns = service.engine.last_step_ns
        if last_ns and self._clock() - last_ns < FRESH_NS:
            return True
        try:
            async with asyncio.timeout(self._timeout_s):
                await service.engine.ping()
        except (TimeoutError, EngineDied):
            return False
        return True
