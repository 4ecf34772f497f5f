"""An engine that dies under load comes back behind a server that goes on answering; one that cannot, ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import openai
import psutil
import pytest

from ridgeline.core.params import SamplingParams
from ridgeline.engine.channel import MakeEngine, ProcessChannel, Report
from ridgeline.engine.messages import Failed
from ridgeline.engine.supervisor import Restarts
from ridgeline.server.daemon import in_daemon_thread
from ridgeline.server.front import Front
from ridgeline.server.service import Service, running_engine
from tests.engine import engines
from tests.server.live import EOS, Live, Stage, byte_level_tokenizer, serving

PATIENCE_S = 60.0
STREAM = {"model": "recite", "prompt": "x", "max_tokens": 50, "temperature": 0, "stream": True}


class Host:
    """Engines in processes of their own, one after another. hold: a restarted one waits for `release`."""

    def __init__(self, *makes: MakeEngine) -> None:
        self.makes = list(makes)
        self.channels: list[ProcessChannel] = []
        self.ready, self.release = threading.Event(), threading.Event()

    @contextlib.asynccontextmanager
    async def bring_up(self, report: Report) -> AsyncIterator[Service]:
        if self.channels:
            report("waiting for the test", 1, 4)
            await in_daemon_thread(partial(self.release.wait, PATIENCE_S))
        make = self.makes.pop(0) if len(self.makes) > 1 else self.makes[0]
        channel = ProcessChannel(make)
        self.channels.append(channel)
        async with running_engine(channel, report) as (client, info):
            asyncio.get_running_loop().call_soon(self.ready.set)
            yield Service(
                engine=client, info=info, tokenizer=byte_level_tokenizer(), eos_ids=(EOS,),
                defaults=SamplingParams(), name="recite", root="acme/recite-1b", created=1700000000,
            )  # fmt: skip


def quick(most: int) -> Restarts:
    return Restarts(most, first_delay_s=0.05)


def until(there: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not there():
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.02)


def status_of(live: Live) -> str:
    word: str = live.fetch("/ready").json["status"]
    return word


def ask(live: Live, stream: bool) -> str:
    """How a request ended: its finish reason, or the error's words."""
    try:
        if not stream:
            answer = live.openai.completions.create(model="recite", prompt="x", max_tokens=50, temperature=0)
            return answer.choices[0].finish_reason
        with live.openai.completions.create(**STREAM) as chunks:  # type: ignore[call-overload]
            return str([chunk.choices[0].finish_reason for chunk in chunks][-1])
    except openai.APIError as error:
        return str(error)


def test_a_killed_engine_fails_what_is_in_flight_and_serves_again() -> None:
    host = Host(engines.slow, engines.working)
    with serving(bring_up=host.bring_up, restarts=quick(1), loaded=False) as live:
        assert host.ready.wait(PATIENCE_S)
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(ask, live, stream=index % 2 == 0) for index in range(6)]
            until(lambda: live.server.in_flight >= 6)
            pid = host.channels[0].process.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            for future in asked:
                assert "the engine ended while this request was in flight; send it again" in future.result(PATIENCE_S)
        until(lambda: live.fetch("/ready").json.get("phase") == "waiting for the test")
        ready = live.fetch("/ready")
        assert ready.status == 503
        assert ready.json == {
            "status": "restoring", "phase": "waiting for the test", "percent": 25.0, "done": 1, "total": 4,
            "attempt": 1, "reason": "the engine process ended with code -9; the server's log has the details",
        }  # fmt: skip
        with pytest.raises(openai.InternalServerError, match="the engine died and is being restored") as caught:
            live.openai.completions.create(model="recite", prompt="x")
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert live.fetch("/health").status == 200
        host.release.set()
        until(lambda: status_of(live) == "ready")
        assert ask(live, stream=False) == "length"
        assert not psutil.pid_exists(pid)


def test_a_step_that_raises_is_restored_as_well() -> None:
    host = Host(engines.raising, engines.working)
    host.release.set()
    with serving(bring_up=host.bring_up, restarts=quick(1), loaded=False) as live:
        assert host.ready.wait(PATIENCE_S)
        assert "send it again" in ask(live, stream=False)
        until(lambda: status_of(live) == "ready")
        assert ask(live, stream=True) == "length"


def test_an_engine_that_cannot_be_restored_ends_the_server(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(engines.raising, engines.misconfigured)
    host.release.set()
    with serving(bring_up=host.bring_up, restarts=quick(1), loaded=False) as live:
        assert host.ready.wait(PATIENCE_S)
        assert "send it again" in ask(live, stream=False)
        live.thread.join(PATIENCE_S)
        assert live.wait() == 1
    assert "more than 1 times within an hour; the server ends. The last reason: --block-size 3" in caplog.text


def test_a_signal_while_the_engine_is_restored_ends_the_server() -> None:
    stage = Stage()
    with serving(stage, restarts=Restarts(5, first_delay_s=30.0)) as live:
        stage.runner.fail = True
        stage.ready.clear()
        assert "send it again" in ask(live, stream=False)
        until(lambda: status_of(live) == "restoring")
        live.server.stop()
        assert live.wait() == 0


def test_an_engine_that_dies_while_the_server_drains_is_not_restored() -> None:
    async def live() -> int:
        begun, died = 0, asyncio.Event()

        class Dying:
            async def ended(self) -> Failed:
                await died.wait()
                return Failed("killed", expected=True)

        @contextlib.asynccontextmanager
        async def bring_up(_report: Report) -> AsyncIterator[Service]:
            nonlocal begun
            begun += 1
            yield SimpleNamespace(engine=Dying())  # type: ignore[misc]

        ready = asyncio.Event()
        front = Front(bring_up, quick(5), lambda _service: ready.set())
        front.start()
        await ready.wait()
        front.drain()
        died.set()
        await asyncio.sleep(0.5)  # ten times what another try would wait
        await front.stop()
        return begun

    assert asyncio.run(live()) == 1


def test_a_restart_that_fails_tells_clients_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    host = Host(engines.raising, engines.defective)
    host.release.set()
    with serving(bring_up=host.bring_up, restarts=Restarts(2, first_delay_s=0.05), loaded=False) as live:
        assert host.ready.wait(PATIENCE_S)
        assert "send it again" in ask(live, stream=False)
        live.thread.join(PATIENCE_S)
        state = live.server._front.state
        assert state.message == "ZeroDivisionError: a defect; the server's log has the details"  # type: ignore[union-attr]
    assert 'raise ZeroDivisionError("a defect")' in caplog.text
