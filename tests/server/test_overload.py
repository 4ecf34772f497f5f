"""Far more than the server can do: accepted requests finish, the rest is refused quickly, nothing is left behind."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from scripts.bench_overload import Load, Sent, client, summary

from ridgeline.core.types import Output
from ridgeline.server.limits import Limits
from ridgeline.server.manners import Manners
from tests.scripted import Launched
from tests.server.live import SLOTS, Live, Reciter, Stage, serving
from tests.server.test_metrics import scrape

STEP_S, TOKENS, QUEUED = 0.02, 20, 8


class Slow(Reciter):
    """A step takes 20 ms, so the capacity is SLOTS / (20 tokens x 20 ms) = 40 requests a second."""

    def collect(self, launched: Launched) -> Output:
        time.sleep(STEP_S)
        return super().collect(launched)


def offered(live: Live, rate_per_s: float, seconds: float) -> list[Sent]:
    async def load() -> list[Sent]:
        async with client() as session:
            return await Load(session, live.url, TOKENS).opened(rate_per_s, seconds)

    return asyncio.run(load())


def test_ten_times_the_capacity() -> None:
    stage = Stage(runner=Slow())
    with serving(stage, manners=Manners(Limits(queued_requests=QUEUED, queued_tokens=10**6))) as live:
        sent = offered(live, rate_per_s=400, seconds=1.5)
        found = summary(sent)
        outcomes = Counter(found["outcomes"])
        assert set(outcomes) == {"200", "429"}
        assert outcomes["200"] + outcomes["429"] == 600
        assert SLOTS + QUEUED <= outcomes["200"] < 300
        assert found["without_retry_after"] == 0
        assert found["refused_ms"]["p50"] < 100, "server and client share a process here, so only the median is told"
        seen = scrape(live)
        assert seen["vllm:request_success_total", "length"] == outcomes["200"]
        assert seen["ridgeline_refused_total", "queued_requests"] == outcomes["429"]
        assert seen["ridgeline_queued_requests", ""] == seen["ridgeline_queued_tokens", ""] == 0
        assert stage.client is not None
        assert stage.client.num_in_flight == 0
        assert sum(stage.runner.rows) <= outcomes["200"] * TOKENS, "what is refused never reaches the engine"
        (after,) = offered(live, rate_per_s=1, seconds=1)
        assert after.outcome == "200"
