"""What the recorder has of an engine, in a thread, in a process, and after its death; and the report of that."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ridgeline.core.errors import EngineDied
from ridgeline.core.flight import ADMITTED, ARRIVED, DECODE, ENDED, FIRST_TOKEN, PREFILL, Recording
from ridgeline.core.flightfile import decoded, read_recording
from ridgeline.core.types import Sampling
from ridgeline.engine.blackbox import KEPT, BlackBox, CrashReports
from ridgeline.engine.channel import Channel, MakeEngine, ProcessChannel, ThreadChannel
from ridgeline.engine.client import EngineClient
from ridgeline.engine.recorder import FlightRecorder, NoRecorder, Recorder
from tests.engine import engines
from tests.engine.test_channel import PATIENCE_S, drain, prompt

Open = Callable[[MakeEngine], Channel]
BOTH = pytest.mark.parametrize("open_channel", [ThreadChannel, ProcessChannel])


def recording_of(recorder: Recorder, steps: int = 100) -> Recording:
    box = BlackBox(recorder)
    box.names = lambda: {1: "cmpl-a-0", 77: "long gone"}
    found = box.recording(engines.INFO, "recite", steps)
    assert found is not None
    return found


@BOTH
def test_the_front_has_the_steps_and_lives_of_a_running_engine(open_channel: Open) -> None:
    recorder = FlightRecorder.create()

    async def talk() -> Recording:
        client = EngineClient(open_channel(partial(engines.recorded, recorder)))
        client.start()
        try:
            await client.ready()
            stream = client.submit(prompt(1, 2, 3), 4, Sampling())
            _, end = await drain(stream)
            assert end.timings.parts.total_ns == end.timings.finished_ns - end.timings.arrival_ns
            assert 0 < end.timings.device_ns <= end.timings.parts.prefill_ns + end.timings.parts.decode_ns
            await client.ping()
            return recording_of(recorder)
        finally:
            client.close()

    recording = asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))
    assert recording.rows.key.tolist() == [1] * 4
    assert recording.rows.phase.tolist() == [PREFILL, DECODE, DECODE, DECODE]
    assert recording.rows.count.tolist() == [3, 1, 1, 1]
    assert recording.lives.what.tolist() == [ARRIVED, ADMITTED, FIRST_TOKEN, ENDED]
    assert (np.diff(recording.lives.at_ns) >= 0).all()
    assert recording.names == {1: "cmpl-a-0"}
    assert decoded(recording.encoded()).json() == recording.json()
    assert recording_of(recorder, 2).steps.serial.tolist() == [3, 4], "the engine is gone, the recording is not"


@BOTH
def test_a_running_request_is_told_as_far_as_it_is(open_channel: Open) -> None:
    async def talk() -> None:
        client = EngineClient(open_channel(engines.slow))
        client.start()
        try:
            await client.ready()
            stream = client.submit(prompt(1, 2, 3), 40, Sampling())
            await stream.receive()
            times = (await client.timings([stream.key, 999]))[stream.key]
            assert times.steps >= 1
            assert times.parts.total_ns == times.finished_ns - times.arrival_ns
            assert times.parts.prefill_ns > 0 < times.device_ns
            stream.abort()
            _, end = await drain(stream)
            assert end.timings.parts.total_ns == end.timings.finished_ns - end.timings.arrival_ns
            assert await client.timings([stream.key]) == {}
        finally:
            client.close()

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))


def test_an_engine_that_was_killed_leaves_its_last_steps(tmp_path: Path) -> None:
    recorder = FlightRecorder.create()

    async def talk() -> str:
        client = EngineClient(ProcessChannel(partial(engines.recorded_falling, recorder)))
        client.start()
        try:
            await client.ready()
            with pytest.raises(EngineDied):
                await drain(client.submit(prompt(4, 5), 30, Sampling()))
            return (await client.ended()).message
        finally:
            client.close()

    message = asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))
    box = BlackBox(recorder)
    said = CrashReports(tmp_path / "crashes").write(
        box.recording(engines.INFO, "recite", reason="crash", message=message)
    )
    [path] = (tmp_path / "crashes").iterdir()
    assert str(path) in said
    report = read_recording(path)
    assert (report.reason, report.message) == ("crash", message)
    assert "code 42" in message
    assert report.steps.serial.tolist() == [1, 2], "it fell in its third launch"
    assert report.lives.what.tolist() == [ARRIVED, ADMITTED, FIRST_TOKEN]


def test_the_newest_crash_reports_are_kept_and_nothing_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    reports, recording = CrashReports(tmp_path), recording_of(FlightRecorder.create())
    for i in range(KEPT + 3):
        reports.write(recording)
        newest = max(tmp_path.glob("crash-*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        os.utime(newest, (i, i))
    assert len(list(tmp_path.glob("crash-*.json"))) == KEPT
    assert min(path.stat().st_mtime for path in tmp_path.glob("crash-*.json")) == 3
    assert (tmp_path / "mine.json").exists()


def test_a_report_that_cannot_be_written_is_no_second_crash(tmp_path: Path) -> None:
    (tmp_path / "crashes").write_text("a file in the way")
    said = CrashReports(tmp_path / "crashes").write(recording_of(FlightRecorder.create()))
    assert "could not be written" in said


def test_off_records_nothing_and_says_so(tmp_path: Path) -> None:
    box = BlackBox(NoRecorder.create())
    assert box.recording(engines.INFO, "recite") is None
    assert "--recorder off" in CrashReports(tmp_path).write(None)
