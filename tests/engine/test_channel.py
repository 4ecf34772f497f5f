"""Both channels carry the same conversation, and both tell how it ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

import numpy as np
import psutil
import pytest
from msgspec import structs

from ridgeline.core.errors import BadRequest, EngineDied, Unavailable
from ridgeline.core.types import End, Sampling
from ridgeline.engine.channel import Channel, MakeEngine, ProcessChannel, ThreadChannel
from ridgeline.engine.client import EngineClient, Stream
from ridgeline.engine.process import EngineProcess
from tests.engine import engines
from tests.scripted import naive

Open = Callable[[MakeEngine], Channel]
BOTH = pytest.mark.parametrize("open_channel", [ThreadChannel, ProcessChannel])
PATIENCE_S = 60


async def drain(stream: Stream) -> tuple[list[int], End]:
    tokens: list[int] = []
    while True:
        delta = await stream.receive()
        tokens += delta.tokens
        if delta.end is not None:
            return tokens, delta.end


def prompt(*ids: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(ids, np.int32)


@BOTH
def test_streams_carry_each_request_its_own_tokens(open_channel: Open) -> None:
    async def talk() -> None:
        seen: list[tuple[str, int, int]] = []
        client = EngineClient(open_channel(engines.working))
        client.start(lambda *progress: seen.append(progress))
        try:
            info = await client.ready()
            assert structs.replace(info, ahead_ms=0.0, ahead_waited_ms=0.0) == engines.INFO
            assert seen == [("loading weights", 3, 4)]
            sampling = Sampling(stop_ids=(5,))
            asked = [(prompt(1, 2, 3), 20), (prompt(7), 9), (prompt(4, 4), 30)]
            streams = [client.submit(ids, most, sampling) for ids, most in asked]
            for (ids, most), (tokens, end) in zip(asked, await asyncio.gather(*map(drain, streams)), strict=True):
                assert tokens == naive(ids.tolist(), most, sampling)
                assert end.reason == ("stop" if tokens[-1] == 5 else "length")
                assert end.timings.arrival_ns <= end.timings.admitted_ns < end.timings.finished_ns
            assert client.num_in_flight == 0
        finally:
            client.close()

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


@BOTH
def test_abort_ends_a_request_and_leaves_the_others(open_channel: Open) -> None:
    async def talk() -> None:
        client = EngineClient(open_channel(engines.working))
        client.start()
        try:
            await client.ready()
            gone, stays = client.submit(prompt(1), 60, Sampling()), client.submit(prompt(2), 60, Sampling())
            await gone.receive()
            gone.abort()
            _, end = await drain(gone)
            assert end.reason in ("abort", "length")  # the abort may have come after the last step
            assert (await drain(stays))[0] == naive([2], 60, Sampling())
        finally:
            client.close()

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


@BOTH
def test_what_can_never_run_is_refused_and_the_engine_goes_on(open_channel: Open) -> None:
    async def talk() -> None:
        client = EngineClient(open_channel(engines.working))
        client.start()
        try:
            await client.ready()
            with pytest.raises(BadRequest, match=str(engines.MAX_LEN)):
                await client.submit(prompt(*[1] * 60), 30, Sampling()).receive()
            assert (await drain(client.submit(prompt(3), 4, Sampling())))[0] == naive([3], 4, Sampling())
        finally:
            client.close()

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


@BOTH
@pytest.mark.parametrize(
    ("make", "expected", "message"),
    [(engines.misconfigured, True, "--block-size 3"), (engines.defective, False, "ZeroDivisionError")],
)
def test_an_engine_that_cannot_start_says_why(
    open_channel: Open, make: MakeEngine, expected: bool, message: str
) -> None:
    async def talk() -> None:
        client = EngineClient(open_channel(make))
        client.start()
        try:
            with pytest.raises(Unavailable, match=message):
                await client.ready()
            assert client.failure is not None
            assert client.failure.expected == expected
            with pytest.raises(EngineDied):
                client.submit(prompt(1), 1, Sampling())
        finally:
            client.close()

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


@pytest.mark.parametrize(
    ("open_channel", "make", "message"),
    [
        (ThreadChannel, engines.raising, "out of memory"),
        (ProcessChannel, engines.raising, "out of memory"),
        (ProcessChannel, engines.falling, "ended with code 42"),
    ],
)
def test_requests_in_flight_hear_that_the_engine_died(open_channel: Open, make: MakeEngine, message: str) -> None:
    async def talk() -> None:
        client = EngineClient(open_channel(make))
        client.start()
        try:
            await client.ready()
            stream = client.submit(prompt(1), 30, Sampling())
            with pytest.raises(EngineDied):
                await drain(stream)
            assert message in (await client.ended()).message
        finally:
            client.close()

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


def test_closing_ends_the_engine_process() -> None:
    async def talk() -> None:
        channel = ProcessChannel(engines.working)
        client = EngineClient(channel)
        client.start()
        await client.ready()
        await asyncio.to_thread(client.close)
        assert channel.process.exitcode == 0
        assert client.failure is None  # it was asked to go

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no groups of processes to signal")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_leaves_the_engine_to_its_front(sent: signal.Signals) -> None:
    async def talk() -> None:
        channel = ProcessChannel(engines.working)
        client = EngineClient(channel)
        client.start()
        assert channel.process.pid is not None
        os.kill(channel.process.pid, sent)  # before it has run a line of ours
        await client.ready()
        os.kill(channel.process.pid, sent)
        assert (await drain(client.submit(prompt(3), 4, Sampling())))[0] == naive([3], 4, Sampling())
        await asyncio.to_thread(client.close)
        assert channel.process.exitcode == 0

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


def test_closing_ends_an_engine_that_is_loading() -> None:
    async def talk() -> None:
        loading = asyncio.Event()
        channel = ProcessChannel(engines.stuck)
        client = EngineClient(channel)
        client.start(lambda *_progress: loading.set())
        await loading.wait()
        await asyncio.to_thread(client.close)
        assert not channel.process.is_alive()

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


def test_a_process_started_ahead_prepares_before_it_is_ordered() -> None:
    async def talk() -> None:
        with EngineProcess("tests.engine.engines:prepare", "prepared by name") as ahead:
            channel = ProcessChannel(engines.named_as_prepared, ahead)
            client = EngineClient(channel)
            client.start()
            info = await client.ready()
            assert info.model == "prepared by name"
            assert 0 <= info.ahead_waited_ms <= info.ahead_ms
            assert (await drain(client.submit(prompt(3), 4, Sampling())))[0] == naive([3], 4, Sampling())
            await asyncio.to_thread(client.close)
            assert channel.process.exitcode == 0

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


def test_what_cannot_be_prepared_is_told_by_the_order_that_needs_it() -> None:
    async def talk() -> None:
        with EngineProcess("tests.engine.engines:unprepared") as ahead:
            client = EngineClient(ProcessChannel(engines.defective, ahead))
            client.start()
            with pytest.raises(Unavailable, match="ZeroDivisionError"):
                await client.ready()
            await asyncio.to_thread(client.close)

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


@pytest.mark.parametrize("prepare", ["prepare", "stuck_preparing"])
def test_a_process_that_was_never_ordered_is_gone_after_its_context(prepare: str) -> None:
    with EngineProcess(f"tests.engine.engines:{prepare}", "nothing") as ahead:
        assert ahead.process.pid is not None
    assert not psutil.pid_exists(ahead.process.pid)
