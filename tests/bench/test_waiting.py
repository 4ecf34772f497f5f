"""From the first knock to a ready server, through real HTTP, with a clock turned by hand."""

from __future__ import annotations

import socket

from ridgeline.bench.client import run
from ridgeline.bench.options import ClientOptions
from tests.bench.fake_server import Answer, Body, Script, completion, serving
from tests.bench.hand import HandClock, Screen


def answer(_number: int, _body: Body) -> Answer:
    return completion(None)


def starting(phase: str, percent: float | None) -> Answer:
    return 503, {"status": "starting", "phase": phase, "percent": percent, "done": None, "total": None}


READY: Answer = (200, {"status": "ready"})
DOWNLOAD = [
    starting("downloading gpt2", 0.0),
    starting("downloading gpt2", 4.0),
    starting("downloading gpt2", 41.5),
    starting("loading", None),
    READY,
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_with_no_server_it_says_how_to_start_one() -> None:
    screen = Screen(width=30)
    assert run(ClientOptions(url=f"http://127.0.0.1:{free_port()}"), screen.console, HandClock()) == 1
    assert "start one with: python server.py" in screen.lines


def test_wait_s_goes_on_knocking_for_that_long() -> None:
    clock = HandClock()
    screen = Screen()
    assert run(ClientOptions(url=f"http://127.0.0.1:{free_port()}", wait_s=5), screen.console, clock) == 1
    assert 5 <= clock.time_s - 1000 < 6
    assert "start one with: python server.py" in screen.text


def test_a_starting_server_is_waited_for_with_lines_in_a_pipe() -> None:
    screen = Screen()
    with serving(Script(answer, ready=DOWNLOAD)) as url:
        assert run(ClientOptions(url=url, num_requests=1), screen.console, HandClock()) == 0
    lines = [line for line in screen.lines if "starting" in line]
    assert lines == [
        "the server is starting: downloading gpt2 0 %",
        "the server is starting: downloading gpt2 42 %",
        "the server is starting: loading",
    ]


def test_a_starting_server_is_waited_for_with_a_bar_in_a_terminal() -> None:
    screen = Screen(force_terminal=True, color_system=None)
    with serving(Script(answer, ready=DOWNLOAD)) as url:
        assert run(ClientOptions(url=url, num_requests=1), screen.console, HandClock()) == 0
    assert "downloading gpt2" in screen.text
    assert "42 %" in screen.text
    assert "loading" in screen.text


def test_a_failed_server_tells_its_message() -> None:
    screen = Screen()
    script = Script(
        answer, ready=[starting("loading", 10.0), (503, {"status": "failed", "message": "no [memory] left"})]
    )
    with serving(script) as url:
        assert run(ClientOptions(url=url), screen.console, HandClock()) == 1
    assert "has failed: no [memory] left" in screen.text
    assert not script.bodies


def test_a_server_without_progress_is_given_up() -> None:
    clock = HandClock()
    screen = Screen()
    with serving(Script(answer, ready=[starting("loading", 10.0)])) as url:
        assert run(ClientOptions(url=url, stall_s=20), screen.console, clock) == 1
    assert "made no progress for 20 s (loading)" in screen.text
    assert 20 <= clock.time_s - 1000 < 21


def test_a_slow_server_that_makes_progress_is_not_given_up() -> None:
    clock = HandClock()
    slow = [starting("downloading", i / 10) for i in range(400)]
    with serving(Script(answer, ready=[*slow, READY])) as url:
        assert run(ClientOptions(url=url, num_requests=1, stall_s=1, delay_ms=0), Screen().console, clock) == 0
    assert clock.time_s - 1000 >= 100


def test_a_server_that_ends_while_it_starts_is_told() -> None:
    screen = Screen()
    with serving(Script(answer, ready=[starting("loading", 10.0), None])) as url:
        assert run(ClientOptions(url=url), screen.console, HandClock()) == 1
    assert "ended while it was starting" in screen.text
