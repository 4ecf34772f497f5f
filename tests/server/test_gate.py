"""What every request meets: its name, its log line, its deadline, and the bounds on slow and greedy clients."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from ridgeline.server.auth import Key, Keys
from ridgeline.server.limits import Limits
from ridgeline.server.logs import Json, Text
from ridgeline.server.manners import Manners
from tests.server.live import Live, Stage, serving

HEAD = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
KEYS = Keys([Key("one", b"")])
LONG = {"prompt": "x", "max_tokens": 200, "temperature": 0}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(manners=Manners(log_prompts=True)) as live:
        yield live


def post(live: Live, body: dict[str, Any], **headers: str) -> Any:
    return live.fetch("/v1/completions", "POST", json.dumps(body).encode(), **headers)


@contextlib.contextmanager
def connected(live: Live, sent: str | bytes, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    with socket.socket() as connection:
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", live.server.port))
        connection.sendall(sent.encode() if isinstance(sent, str) else sent)
        yield connection


def rest(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def error_in(answer: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def wait_until(reached: Any) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/v1/models", 200), ("/nowhere", 404)])
def test_a_request_keeps_its_name(live: Live, path: str, status: int) -> None:
    reply = live.fetch(path, x_request_id="my-request.7")
    assert (reply.status, reply.headers["x-request-id"]) == (status, "my-request.7")


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "caf\xe9", '\x1b[31m"'])
def test_a_name_that_cannot_be_written_down_is_replaced(live: Live, given: str) -> None:
    names = {live.fetch("/health", x_request_id=given).headers["x-request-id"] for _ in range(2)}
    assert len(names) == 2
    assert all(name.isalnum() and len(name) == 32 for name in names)


def test_a_line_a_request(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ridgeline")
    post(live, {"prompt": ["ab", "c"], "max_tokens": 3, "temperature": 0}, x_request_id="first")
    post(live, {"prompt": "secret", "n": 0}, x_request_id="second")
    with connected(live, "GET /x%0ainjected%1b[31m HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as connection:
        assert b" 404 " in rest(connection)
    first, second, third = (json.loads(Json().format(record)) for record in caplog.records)
    assert (first["method"], first["path"], first["status"]) == ("POST", "/v1/completions", 200)
    assert (first["id"], first["prompt_tokens"], first["completion_tokens"]) == ("first", 3, 6)
    assert (first["finish"], first["prompts"]) == (["length", "length"], ["ab", "c"])
    assert first["ms"] > 0
    assert "error" not in first
    assert (second["status"], second["id"]) == (400, "second")
    assert "prompt_tokens" not in second
    for record in caplog.records:
        line = Text().format(record)
        assert line.isprintable()
        assert Json().format(record).count("\n") == 0
    assert (third["path"], third["error"]) == ("/x\ninjected\x1b[31m", "not_found")
    assert " finish=length,length" in Text().format(caplog.records[0])


def test_prompts_are_not_logged_unless_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ridgeline")
    with serving() as live:
        post(live, {"prompt": "a private thing", "max_tokens": 1})
    assert any("/v1/completions status=200" in Text().format(record) for record in caplog.records)
    assert not any("private" in Json().format(record) for record in caplog.records)


def test_a_deadline_ends_the_request_in_the_engine_too() -> None:
    stage = Stage()
    with serving(stage) as live:
        stage.runner.hold()
        reply = post(live, LONG | {"timeout_s": 0.1})
        assert reply.status == 408
        assert (reply.json["error"]["type"], reply.json["error"]["code"]) == ("timeout_error", "deadline_exceeded")
        assert reply.headers["x-should-retry"] == "false"
        assert stage.aborted.get(timeout=10) == 1
        stage.runner.let(2)
        stream = live.openai.completions.create(
            model="recite", prompt="x", max_tokens=200, temperature=0, stream=True, extra_body={"timeout_s": 1.5}
        )
        next(stream)
        with pytest.raises(openai.APIError, match="the time it was allowed"):
            list(stream)
        assert stage.aborted.get(timeout=10) == 2
        for wrong in (0, -1, "1", 10**9, True):
            assert post(live, LONG | {"timeout_s": wrong}).json["error"]["param"] == "timeout_s"


def test_the_server_has_a_deadline_for_all() -> None:
    stage = Stage()
    with serving(stage, manners=Manners(Limits(request_timeout_s=0.2))) as live:
        stage.runner.hold()
        assert post(live, LONG | {"timeout_s": 60}).status == 408
        stage.runner.open()


def test_slow_senders_are_cut_with_words() -> None:
    with serving(manners=Manners(Limits(body_timeout_s=0.3))) as live:
        with connected(live, HEAD + 'Content-Length: 40\r\n\r\n{"prompt"') as connection:
            answer = rest(connection)
            assert b" 408 " in answer.split(b"\r\n")[0]
            assert error_in(answer)["code"] == "body_timeout"
        with connected(live, HEAD) as connection:
            answer = rest(connection)
            assert b" 408 " in answer.split(b"\r\n")[0]
            assert error_in(answer)["code"] == "head_timeout"
        with connected(live, "") as connection:
            assert rest(connection) == b""
        assert post(live, {"prompt": "x", "max_tokens": 1}).status == 200


@pytest.mark.parametrize("end", ["\r\n\r\n", ""])
@pytest.mark.parametrize("size", [40_000, 300_000])
def test_a_head_is_bounded(live: Live, size: int, end: str) -> None:
    with connected(live, b"") as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(f"GET /health HTTP/1.1\r\nHost: a\r\nx-big: {'a' * size}{end}".encode())
        answer = rest(connection)
        if answer or size < 65_536:  # of a longer head the rest is not read, so that a reset may overtake the answer
            assert answer.startswith(b"HTTP/1.1 431 ")
            assert error_in(answer)["code"] == "head_too_large"


def test_what_is_no_http_gets_the_error_object_too(live: Live) -> None:
    with connected(live, "EHLO mail\r\n\r\n") as connection:
        answer = rest(connection)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert error_in(answer)["code"] == "invalid_http"


def test_nonsense_behind_a_request_does_not_become_part_of_its_answer() -> None:
    stage, body = Stage(), json.dumps(LONG)
    with serving(stage) as live:
        stage.runner.hold()
        with connected(live, HEAD + f"Content-Length: {len(body)}\r\n\r\n{body}") as connection:
            assert stage.runner.collecting.wait(10)
            connection.sendall(b"NONSENSE\r\n\r\n")
            assert rest(connection) == b""
        assert stage.aborted.get(timeout=10) == 1
        stage.runner.open()


def test_connections_are_bounded() -> None:
    asking = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    with serving(manners=Manners(Limits(connections=2))) as live, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(live, text)) for text in ("", "", asking)]
        answer = rest(connections[-1])
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer
        assert "too many connections" in error_in(answer)["message"]


def test_one_who_does_not_read_is_cut_and_holds_nothing_up() -> None:
    stage = Stage()
    with serving(stage, manners=Manners(Limits(slow_reader_timeout_s=0.4))) as live:
        for (
            listening
        ) in live.server._sockets:  # what is accepted inherits it: little text fills every buffer on the way
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        body = json.dumps(LONG | {"prompt": ["x"] * 8, "stream": True}).encode()
        with contextlib.ExitStack() as stack:
            request = HEAD.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
            deaf = [stack.enter_context(connected(live, request, receive_buffer=1)) for _ in range(2)]
            assert post(live, {"prompt": "y", "max_tokens": 20}).status == 200
            client = stage.client
            assert client is not None
            wait_until(lambda: client.num_in_flight == 0)
            assert client.counters.kv_blocks == 0
            wait_until(lambda: len(live.server._uvicorn.server_state.connections) == 0)
            for connection in deaf:
                assert not rest(connection).endswith(b"0\r\n\r\n"), "the answer is not whole"
        assert post(live, {"prompt": "y", "max_tokens": 20}).status == 200


def test_a_full_queue_is_told_at_once_and_never_reaches_the_engine() -> None:
    stage, body = Stage(), '{"prompt": ["a", "b"]}'
    with serving(stage, manners=Manners(Limits(queued_requests=2))) as live:
        stage.runner.hold()
        with connected(live, HEAD + f"Content-Length: {len(body)}\r\n\r\n{body}"):
            assert stage.runner.collecting.wait(10)
            with pytest.raises(openai.RateLimitError) as caught:
                live.openai.completions.create(model="recite", prompt="x")
            assert caught.value.code == "rate_limit_exceeded"
            assert caught.value.type == "requests"
            assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
            assert stage.client is not None
            assert stage.client.num_in_flight == 2
            stage.runner.open()
        wait_until(lambda: post(live, {"prompt": "x", "max_tokens": 1}).status == 200)
        assert post(live, {"prompt": ["x"] * 3}).json["error"]["param"] == "prompt"


def test_the_rest_of_a_refused_body_may_not_come_for_ever() -> None:
    manners, head = Manners(Limits(body_timeout_s=0.5), KEYS), HEAD + "Content-Length: 100000\r\n\r\n{"
    with serving(manners=manners) as live, connected(live, head) as connection:
        assert b" 401 " in connection.recv(65_536)
        deadline, ended = time.monotonic() + 20, False
        connection.settimeout(0.05)
        while not ended and time.monotonic() < deadline:
            try:
                connection.sendall(b" ")  # a byte now and then renews nothing
                ended = connection.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
        assert ended


def test_a_refused_body_that_comes_in_time_leaves_the_connection_usable() -> None:
    manners, head = Manners(Limits(body_timeout_s=20), KEYS), HEAD + "Content-Length: 4\r\n\r\n{"
    with serving(manners=manners) as live, connected(live, head) as connection:
        assert b" 401 " in connection.recv(65_536)
        connection.sendall(b"   GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b" 200 " in rest(connection)


@pytest.mark.parametrize("value", ['a" error=none', "a b\\", "a\\", '\\" status=200'])
def test_no_value_ends_before_its_quotes_do(value: str) -> None:
    record = logging.makeLogRecord({"msg": "request", "fields": {"path": value, "status": 500}})
    line = Text().format(record).split(" request ", 1)[1]
    fields = re.fullmatch(r'path=("(?:[^"\\]|\\.)*"|[^ "=]*) status=500', line)
    assert fields is not None, line


def test_the_field_that_asked_for_too_many_generations_is_named() -> None:
    chat = {"messages": [{"role": "user", "content": "x"}], "n": 5}
    with serving(manners=Manners(Limits(queued_requests=4))) as live:
        for path, body, param in (
            ("/v1/chat/completions", chat, "n"),
            ("/v1/completions", {"prompt": "x", "n": 5}, "n"),
            ("/v1/completions", {"prompt": "x", "best_of": 5}, "best_of"),
            ("/v1/completions", {"prompt": ["x"] * 5}, "prompt"),
        ):
            reply = live.fetch(path, "POST", json.dumps(body).encode())
            assert (reply.status, reply.json["error"]["param"]) == (400, param)


def test_a_prompt_counts_once_in_the_log(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ridgeline.requests"):
        assert post(live, {"prompt": "abc", "n": 4, "max_tokens": 1}).status == 200
    assert " prompt_tokens=3 " in Text().format(caplog.records[0])


def test_a_deadline_bounds_the_body_too() -> None:
    manners = Manners(Limits(request_timeout_s=0.2, body_timeout_s=20))
    for path in ("/v1/completions", "/tokenize"):
        head = HEAD.replace("/v1/completions", path) + "Content-Length: 100\r\n\r\n{"
        with serving(manners=manners) as live, connected(live, head) as connection:
            answer = connection.recv(65_536)
            assert b" 408 " in answer
            assert error_in(answer)["code"] == "deadline_exceeded"
