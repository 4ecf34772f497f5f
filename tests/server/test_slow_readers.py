"""Clients that do not read, and choices that begin to write at the same moment."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import AsyncIterator
from http.client import HTTPResponse
from typing import Any

from starlette.types import Message

from ridgeline.engine.channel import Report
from ridgeline.server.front import BringUp
from ridgeline.server.service import Service
from ridgeline.server.writer import Writer
from tests.server.live import TEXT, Live, Stage, serving

TOKENS = 250


def long_events(stage: Stage) -> BringUp:
    @contextlib.asynccontextmanager
    async def bring_up(report: Report) -> AsyncIterator[Service]:
        """A name that is in every event and as long as a quarter of a MiB: a few events fill the socket's buffers."""
        async with stage.bring_up(report) as service:
            yield dataclasses.replace(service, name="n" * 2**18)

    return bring_up


def ask_and_do_not_read(connection: socket.socket, live: Live, **more: Any) -> None:
    body = json.dumps({"prompt": "x", "max_tokens": TOKENS, "temperature": 0, "stream": True} | more).encode()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", live.server.port))
    head = "POST /v1/completions HTTP/1.1", "Host: a", "Content-Type: application/json"
    connection.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body)


def test_a_client_that_does_not_read_gets_several_tokens_an_event_and_loses_none() -> None:
    stage = Stage()
    with serving(stage, bring_up=long_events(stage)) as live, socket.socket() as connection:
        ask_and_do_not_read(connection, live)
        deadline = time.monotonic() + 20
        while len(stage.runner.rows) < TOKENS or (stage.client and stage.client.num_in_flight):
            assert time.monotonic() < deadline, "the engine waited for the client"
            time.sleep(0.01)
        response = HTTPResponse(connection)
        response.begin()
        events = [json.loads(event[6:]) for event in response.read().split(b"\n\n") if event.startswith(b"data: {")]
    texts = [event["choices"][0]["text"] for event in events]
    assert "".join(texts) == (TEXT.encode() * 4)[:TOKENS].decode("utf-8", "replace")
    assert len(texts) < TOKENS // 2, "what piled up behind a full socket came as one event"
    assert max(map(len, texts)) > 10


def test_a_deadline_ends_the_request_of_a_client_that_does_not_read() -> None:
    stage = Stage()
    with serving(stage, bring_up=long_events(stage)) as live, socket.socket() as connection:
        stage.runner.hold()
        stage.runner.let(100)
        ask_and_do_not_read(connection, live, timeout_s=1)
        assert stage.aborted.get(timeout=20) == 1, "a minute before the client itself is cut off"


def test_choices_that_begin_together_start_the_response_once_and_first() -> None:
    sent: list[Message] = []
    room = asyncio.Event()

    async def send(message: Message) -> None:
        await room.wait()
        sent.append(message)

    async def write() -> None:
        writer = Writer(send, [(b"x-more", b"yes")])
        events = [asyncio.create_task(writer.event(b"data: %d\n\n" % i)) for i in range(3)]
        await asyncio.sleep(0)
        assert not writer.started, "nothing has left yet, so an error can still be a status"
        room.set()
        await asyncio.gather(*events)
        assert writer.started

    asyncio.run(write())
    assert [message["type"] for message in sent] == ["http.response.start"] + 3 * ["http.response.body"]
    headers: dict[bytes, Any] = dict(sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"x-more"] == b"yes"
    assert {message["body"] for message in sent[1:]} == {b"data: 0\n\n", b"data: 1\n\n", b"data: 2\n\n"}
