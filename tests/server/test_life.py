"""Starting, ready, failed, stopping; clients that leave; engines that die."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator

import openai
import pytest

from ridgeline.core.errors import ConfigError, ModelError
from ridgeline.engine.channel import Report
from ridgeline.server.daemon import in_daemon_thread
from ridgeline.server.readiness import Readiness
from ridgeline.server.serve import listen
from ridgeline.server.service import Service
from tests.server.live import Stage, serving

STREAM = {"model": "recite", "prompt": "x", "max_tokens": 200, "temperature": 0, "stream": True}


def test_while_it_starts_it_tells_how_far_it_is() -> None:
    stage, downloaded = Stage(), threading.Event()

    @contextlib.asynccontextmanager
    async def bring_up(report: Report) -> AsyncIterator[Service]:
        report("downloading gpt2", 415, 1000)
        await in_daemon_thread(lambda: downloaded.wait(10))
        async with stage.bring_up(report) as service:
            yield service

    with serving(stage, bring_up=bring_up, loaded=False) as live:
        assert live.fetch("/health").json == {"status": "live"}
        response = live.fetch("/ready")
        assert response.status == 503
        assert response.json == {
            "status": "starting", "phase": "downloading gpt2", "percent": 41.5, "done": 415, "total": 1000
        }  # fmt: skip
        with pytest.raises(openai.InternalServerError, match=r"downloading gpt2 \(41.5 %\)") as caught:
            live.openai.completions.create(model="recite", prompt="x")
        assert caught.value.status_code == 503
        assert caught.value.response.headers["retry-after"] == "1"
        with pytest.raises(openai.InternalServerError):
            live.openai.models.list()
        downloaded.set()
        stage.release.set()
        assert stage.ready.wait(10)
        assert live.fetch("/ready").json == {"status": "ready"}


def test_a_start_that_fails_ends_the_server_with_the_message(caplog: pytest.LogCaptureFixture) -> None:
    @contextlib.asynccontextmanager
    async def bring_up(_report: Report) -> AsyncIterator[Service]:
        raise ModelError("gpt3: no such model on the hub")
        yield

    with serving(bring_up=bring_up, loaded=False) as live:
        assert live.wait() == 1
    assert [record.getMessage() for record in caplog.records] == ["gpt3: no such model on the hub"]


def test_an_engine_that_cannot_start_ends_the_server_too(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(broken="too little memory: 3 GiB needed, 2 GiB free")
    with serving(stage, loaded=False) as live:
        stage.release.set()
        assert live.wait() == 1
    assert "too little memory: 3 GiB needed, 2 GiB free" in caplog.text


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_costs_at_most_one_more_step(stream: bool) -> None:
    stage = Stage()
    with serving(stage) as live:
        stage.runner.hold()
        stage.runner.let(3)
        body = (
            b'{"prompt": ["x", "y"], "max_tokens": 200, "temperature": 0, "stream": %s}' % str(stream).lower().encode()
        )
        with socket.create_connection(("127.0.0.1", live.server.port)) as connection:
            head = "POST /v1/completions HTTP/1.1", "Host: a", "Content-Type: application/json"
            connection.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body)
            assert stage.runner.collecting.wait(10)
            if stream:
                assert b"text/event-stream" in connection.recv(10_000)
        assert {stage.aborted.get(timeout=10), stage.aborted.get(timeout=10)} == {1, 2}
        before = len(stage.runner.rows)
        stage.runner.open()
        answer = live.openai.completions.create(model="recite", prompt="z", max_tokens=20, temperature=0)
        assert answer.choices[0].finish_reason == "length"
        assert stage.client is not None
        assert stage.client.num_in_flight == 0
        assert stage.runner.rows[before:] == [1] * 20


def test_a_stop_string_ends_the_request_in_the_engine() -> None:
    stage = Stage()
    with serving(stage) as live:
        stage.runner.hold()
        stage.runner.let(4)
        stream = live.openai.completions.create(**(STREAM | {"stop": "rü"}))  # type: ignore[call-overload]
        assert next(stream).choices[0].text == "G"
        assert stage.aborted.get(timeout=10) == 1
        stage.runner.open()
        assert [chunk.choices[0].finish_reason for chunk in stream] == ["stop"]
        assert len(stage.runner.rows) in (4, 5), "the next step may have begun already"


def test_an_engine_that_dies_ends_streams_with_an_error_and_the_server(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    with serving(stage) as live:
        stage.runner.hold()
        stage.runner.let(1)
        stream = live.openai.completions.create(**STREAM)  # type: ignore[call-overload]
        assert next(stream).choices[0].text == "G"
        stage.runner.fail = True
        stage.runner.open()
        with pytest.raises(openai.APIError, match="the engine ended while this request was in flight"):
            list(stream)
        assert live.wait() == 1, "without restarts there is nothing to stay for"
    assert "fell off the bus" in caplog.text


def test_an_engine_that_dies_ends_plain_requests_with_a_503() -> None:
    stage = Stage()
    stage.runner.fail = True
    with serving(stage) as live, pytest.raises(openai.InternalServerError, match="the engine ended") as caught:
        live.openai.completions.create(model="recite", prompt=["x", "y"])
    assert caught.value.status_code == 503


def test_the_end_of_the_time_to_drain_ends_streams_with_an_error() -> None:
    stage, said = Stage(), list[str]()
    with serving(stage, drain_s=0.3, say=said.append) as live:
        stage.runner.hold()
        stage.runner.let(2)
        stream = live.openai.completions.create(**STREAM)  # type: ignore[call-overload]
        next(stream)
        live.server.stop()
        with pytest.raises(openai.APIError, match="the server is stopping"):
            list(stream)
        stage.runner.open()
        assert live.wait() == 0
    assert "finishing 1 request" in said[0]
    assert "time to drain is over" in said[1]


def test_draining_finishes_what_is_in_flight_and_sends_newcomers_away() -> None:
    stage, draining = Stage(), threading.Event()
    with serving(stage, say=lambda _line: draining.set()) as live:
        stage.runner.hold()
        stage.runner.let(1)
        stream = live.openai.completions.create(**STREAM)  # type: ignore[call-overload]
        next(stream)
        live.server.stop()
        assert draining.wait(10)
        refused = live.fetch("/v1/completions", "POST", b'{"prompt": "x"}')
        assert refused.status == 503
        assert "the server is stopping" in refused.json["error"]["message"]
        assert (refused.headers["connection"], refused.headers["retry-after"]) == ("close", "1")
        ready = live.fetch("/ready")
        assert (ready.status, ready.json) == (503, {"status": "draining"})
        assert live.fetch("/health").status == 200
        stage.runner.open()
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
        assert live.wait() == 0


def test_ready_asks_an_idle_engine_and_sees_one_that_hangs() -> None:
    now = [time.perf_counter_ns()]
    stage = Stage()
    with serving(stage, readiness=Readiness(clock=lambda: now[0], timeout_s=0.2)) as live:
        assert live.fetch("/ready").status == 200
        assert stage.runner.rows == [], "to ask costs no step"
        stage.runner.hold()
        stage.runner.let(1)
        stream = live.openai.completions.create(**STREAM)  # type: ignore[call-overload]
        next(stream)
        assert live.fetch("/ready").status == 200, "a fresh step is proof enough"
        now[0] += 11 * 10**9
        response = live.fetch("/ready")
        assert (response.status, response.json) == (503, {"status": "stalled"})
        stage.runner.open()
        list(stream)


def test_localhost_is_both_addresses_on_one_port_and_a_port_in_use_is_told() -> None:
    sockets = listen("localhost", 0)
    port = sockets[0].getsockname()[1]
    try:
        assert {sock.getsockname()[1] for sock in sockets} == {port}
        assert sockets[0].getsockname()[0] == "127.0.0.1"
        assert [sock.getsockname()[0] for sock in sockets[1:]] in ([], ["::1"])
        for host in ("localhost", "127.0.0.1"):
            with pytest.raises(ConfigError, match=f"--port {port}: in use on 127.0.0.1"):
                listen(host, port)
    finally:
        for sock in sockets:
            sock.close()
    with pytest.raises(ConfigError, match=r"--host no\.such\.host\.invalid"):
        listen("no.such.host.invalid", 0)


def test_the_front_needs_no_torch() -> None:
    # In a process of its own: other tests of this one may well have imported it.
    code = "import sys, ridgeline.server.app, ridgeline.server.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
