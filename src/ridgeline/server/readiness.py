"""Readiness: does the engine make progress? Knows steps and one tiny request; knows no HTTP.

A running process proves nothing. A step in the last ten seconds does; when there was none, because nobody asked for
anything or because the engine hangs, a request for one token tells which.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from ridgeline.core.errors import RidgelineError
from ridgeline.core.params import SamplingParams
from ridgeline.server.service import Service

FRESH_NS = 10 * 10**9
PROBE_TIMEOUT_S = 5.0


class Readiness:
    """clock: the nanoseconds that the engine client stamps steps with."""

    def __init__(self, clock: Callable[[], int] = time.perf_counter_ns, timeout_s: float = PROBE_TIMEOUT_S) -> None:
        self._clock, self._timeout_s = clock, timeout_s
        self._probing: asyncio.Task[bool] | None = None

    async def progressing(self, service: Service) -> bool:
        """Whether a step was made in the last ten seconds, or is made now. However many ask, one probe runs."""
        if service.engine.last_step_ns and self._clock() - service.engine.last_step_ns < FRESH_NS:
            return True
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe(service))
        return await asyncio.shield(self._probing)

    async def _probe(self, service: Service) -> bool:
        params = SamplingParams(max_tokens=1, temperature=0, seed=0)  # a seed, so as not to take one from a client
        try:
            stream = service.submit(np.zeros(1, np.int32), params)
        except RidgelineError:
            return False
        try:
            async with asyncio.timeout(self._timeout_s):
                await stream.receive()
        except (TimeoutError, RidgelineError):
            return False
        finally:
            stream.abort()
        return True
