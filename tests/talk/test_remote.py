"""A server at the other end: Ridgeline's own for text, a scripted one for conversations and for what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from ridgeline.core.errors import BadRequest, ConfigError, RidgelineError, Unavailable
from ridgeline.talk.conversation import Conversation, Turn
from ridgeline.talk.remote import Address, Chat, Facts, Plain, Remote, ask_facts
from tests.server.live import MAX_LEN, TEXT
from tests.server.live import serving as serving_ridgeline

Body = dict[str, Any]
FULL = {"error": {"message": "too long", "code": "context_length_exceeded"}}


def delta(text: str | None) -> str:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"


@dataclass
class Scripted:
    """answer: a status with an object, or a stream's text. info: /tokenizer_info's object, None: no such route."""

    answer: Callable[[Body], tuple[int, Body] | str] = lambda _body: delta("Hi") + "data: [DONE]\n\n"
    info: Body | None = None
    key: str | None = None
    bodies: list[Body] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/tokenizer_info", self.tokenizer_info)
        app.router.add_post("/v1/chat/completions", self.complete)
        return app

    async def models(self, request: web.Request) -> web.StreamResponse:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "no key"}}, status=401)
        return web.json_response({"data": [{"id": "tiny", "max_model_len": 64}]})

    async def tokenizer_info(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(self.info or {}, status=404 if self.info is None else 200)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        answer = self.answer(self.bodies[-1])
        if isinstance(answer, str):
            return web.Response(text=answer, content_type="text/event-stream")
        return web.json_response(answer[1], status=answer[0])


@contextlib.contextmanager
def serving(script: Scripted) -> Iterator[Address]:
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(script.app(), shutdown_timeout=0.1)

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        port = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
        yield Address.parse(f"http://127.0.0.1:{port}/v1/", script.key)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def ask(address: Address, *turns: str) -> tuple[list[str], Conversation]:
    conversation, parts = Conversation("Be brief.", [Turn(said) for said in turns]), list[str]()
    Remote(address, Facts("tiny", 64, True), Chat(), 32, {"top_k": 3}).answer(conversation, parts.append)
    return parts, conversation


def test_a_text_is_continued_by_ridgelines_own_server() -> None:
    with serving_ridgeline() as live:
        address = Address.parse(live.url, None)
        facts, parts = ask_facts(address), list[str]()
        assert (facts.model, facts.context) == ("recite", MAX_LEN)
        remote = Remote(address, facts, Plain(), 40, {"temperature": 0.0})
        conversation = Conversation(turns=[Turn("a" * 150, "b" * 150), Turn("Say it")])
        assert remote.answer(conversation, parts.append) == "length"
        assert "".join(parts) == TEXT.encode()[:40].decode(errors="replace")
        assert conversation.left_out == 1
        with pytest.raises(BadRequest, match="earlier turns"):
            remote.answer(Conversation(turns=[Turn("a" * 300)]), parts.append)


def test_a_conversation_is_sent_with_its_roles_and_parameters() -> None:
    script = Scripted(lambda _body: delta(None) + ": a comment\n\n" + delta("Gr") + delta("üße") + "data: [DONE]\n\n")
    with serving(script) as address:
        assert [part for part in ask(address, "Hello")[0] if part] == ["Gr", "üße"]
    (body,) = script.bodies
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert (body["model"], body["top_k"], body["max_tokens"], body["stream"]) == ("tiny", 3, 32, True)


def test_a_full_context_shortens_the_answer_first_and_then_the_conversation() -> None:
    def answer(body: Body) -> tuple[int, Body] | str:
        return (400, FULL) if len(body["messages"]) > 4 or body["max_tokens"] > 16 else delta("ok") + "data: [DONE]\n\n"

    script = Scripted(answer)
    with serving(script) as address:
        parts, conversation = ask(address, "one", "two", "three")
    assert parts == ["ok"]
    assert [(len(body["messages"]), body["max_tokens"]) for body in script.bodies] == [(6, 32), (6, 16), (4, 16)]
    assert conversation.left_out == 1


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((429, {"error": {"message": "queue full"}}), Unavailable, "429: queue full"),
        ((503, {"error": "starting"}), Unavailable, "starting"),
        ((400, {"error": {"message": "top_k: no"}}), BadRequest, "top_k: no"),
        (delta("half"), Unavailable, "broke off"),
        ('data: {"error": {"message": "engine died"}}\n\n', Unavailable, "engine died"),
        ("data: [1]\n\n", Unavailable, "no piece of an answer"),
        ("data: nonsense\n\n", Unavailable, "no piece of an answer"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    answer: tuple[int, Body] | str, kind: type[RidgelineError], words: str
) -> None:
    with serving(Scripted(lambda _body: answer)) as address, pytest.raises(kind, match=words):
        ask(address, "Hello")


@pytest.mark.parametrize(
    ("info", "has_template"), [(None, None), ({"chat_template": None}, False), ({"chat_template": "{{ x }}"}, True)]
)
def test_whether_there_is_a_template_is_asked(info: Body | None, has_template: bool | None) -> None:
    with serving(Scripted(info=info)) as address:
        assert ask_facts(address) == Facts("tiny", 64, has_template)


def test_keys_and_addresses() -> None:
    with serving(Scripted(key="secret")) as address:
        assert ask_facts(address).model == "tiny"
        for key in ("wrong", None):
            with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
                ask_facts(Address(address.url, key))
    with pytest.raises(Unavailable, match="ridgeline serve"):
        ask_facts(address)  # nobody listens there any more
    for url in ("localhost:8000", "http://127.0.0.1:99999", "http://[::1"):
        with pytest.raises(ConfigError, match="is no address"):
            ask_facts(Address.parse(url, None))


def test_a_reader_of_the_answer_that_left_is_not_taken_for_the_server() -> None:
    def say(_text: str) -> None:
        raise BrokenPipeError

    with serving(Scripted()) as address, pytest.raises(BrokenPipeError):
        Remote(address, Facts(None, None, True), Chat(), 8, {}).answer(Conversation(turns=[Turn("Hello")]), say)


def test_an_error_that_is_null_is_none() -> None:
    event = {"choices": [{"delta": {"content": "Hi"}}], "error": None}
    scripted = Scripted(lambda _body: f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n")
    with serving(scripted) as address:
        said: list[str] = []
        partner = Remote(address, Facts(None, None, True), Chat(), 4, {})
        partner.answer(Conversation("", [Turn("x")]), said.append)
    assert said == ["Hi"]
