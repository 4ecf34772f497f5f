"""The wall ledger over real HTTP: whatever happens to a request, its parts add up to what a stopwatch outside says."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import socket
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ridgeline.engine.supervisor import Restarts
from ridgeline.server.ledger import PARTS
from ridgeline.server.manners import Manners
from tests.server.live import SLOTS, Live, Reciter, Stage, serving
from tests.server.test_gate import wait_until
from tests.server.test_slow_readers import TOKENS, ask_and_do_not_read, long_events

Json = dict[str, Any]
AFTER = ("delivered", "detokenised", "socket")
SEED = 7


class Stopwatch:
    """Around the whole application: when a request's head was there, and when its last byte was handed over."""

    walls_ms: ClassVar[dict[str, float]] = {}

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun_ns = time.perf_counter_ns()
        name = dict(scope["headers"]).get(b"x-request-id", b"").decode()

        async def timed(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.walls_ms[name] = (time.perf_counter_ns() - begun_ns) / 1e6

        await self._app(scope, receive, timed)


@dataclass(frozen=True)
class Asked:
    """leaves_after: events; None: it stays to the end."""

    name: str
    prompt: str
    max_tokens: int
    stream: bool = True
    leaves_after: int | None = None


async def ask(port: int, asked: Asked) -> None:
    body = {"prompt": asked.prompt, "max_tokens": asked.max_tokens, "temperature": 0, "stream": asked.stream}
    data = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1", "Host: a", "Content-Type: application/json", "Connection: close"
    lines = *head, f"x-request-id: {asked.name}", f"Content-Length: {len(data)}", "", ""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join(lines).encode() + data)
    events = 0
    while line := await reader.readline():
        events += line.startswith(b"data: ")
        if asked.leaves_after is not None and events >= asked.leaves_after:
            break
    writer.close()


def told(live: Live, name: str) -> Json:
    reply = live.fetch(f"/v1/requests/{name}")
    assert reply.status == 200, reply.body
    detail: Json = reply.json
    return detail


def parts(generation: Json) -> dict[str, float]:
    return {part["name"]: part["ms"] for part in generation["parts"]}


def check_sums(generation: Json) -> None:
    named = parts(generation)
    assert tuple(named) == PARTS
    assert min(named.values()) >= 0, named
    assert sum(named.values()) == pytest.approx(generation["wall_ms"], abs=1e-6), "nothing remains"


def check_spans(generation: Json) -> None:
    spans, named = generation["spans"], parts(generation)
    assert spans[0]["start_ms"] == 0
    for before, after in itertools.pairwise(spans):
        assert before["end_ms"] == pytest.approx(after["start_ms"], abs=1e-6)
        assert before["name"] != after["name"]
    assert spans[-1]["end_ms"] == pytest.approx(generation["wall_ms"], abs=1e-6)
    for name, ms in named.items():
        drawn = sum(span["end_ms"] - span["start_ms"] for span in spans if span["name"] == name)
        # The waterfall knows commits and the turns of lives; where a request is preempted the ledger knows more.
        assert drawn == pytest.approx(ms, abs=0.05 * generation["wall_ms"]), name


def traffic(random_: random.Random) -> list[Asked]:
    """64 requests that need more blocks than there are; every sixth leaves half way, some want their answer whole."""
    made = []
    for i in range(64):
        leaves = random_.randrange(1, 40) if i % 6 == 5 else None
        prompt, tokens = "x" * random_.randrange(5, 120), random_.randrange(60, 120)
        made.append(Asked(f"load-{i}", prompt, tokens, stream=i % 8 != 7 or leaves is not None, leaves_after=leaves))
    return made


def test_the_parts_of_64_requests_add_up_to_the_stopwatch() -> None:
    stage = Stage(Reciter(num_blocks=100), budget=48)
    stage.runner.step_s = 0.002
    asked = traffic(random.Random(SEED))
    print(f"seed {SEED}")

    async def everybody(port: int) -> None:
        await asyncio.gather(*(ask(port, one) for one in asked))

    with serving(stage, manners=Manners(), around=Stopwatch) as live:
        asyncio.run(everybody(live.server.port))
        assert stage.client is not None
        wait_until(lambda: stage.client and not stage.client.num_in_flight)
        details = {one.name: told(live, one.name) for one in asked}
        device_ms = stage.client.counters.device_ns / 1e6
    generations = [detail["generations"][0] for detail in details.values()]
    for generation in generations:
        check_sums(generation)
        assert generation["spans_from"] == "recording"
        check_spans(generation)
    whole = [one for one in asked if one.leaves_after is None]
    offs = []
    for one in whole:
        detail, seen_ms = details[one.name], Stopwatch.walls_ms[one.name]
        assert (detail["state"], detail["finish_reason"]) == ("done", "length")
        assert detail["completion_tokens"] == one.max_tokens
        offs.append(abs(sum(parts(detail["generations"][0]).values()) / seen_ms - 1))
    assert sorted(offs)[len(offs) * 9 // 10] < 0.01, "within 1 %, but for a pause of the machine between two stamps"
    assert max(offs) < 0.05
    left = [details[one.name] for one in asked if one.leaves_after is not None]
    assert {detail["finish_reason"] for detail in left} <= {"abort", "length"}
    assert sum(detail["finish_reason"] == "abort" for detail in left) > len(left) // 2
    preempted = [one for one in generations if one["preemptions"]]
    assert preempted, "there were too many blocks"
    assert all(parts(one)["recomputed"] > 0 or one["finish_reason"] == "abort" for one in preempted)
    assert sum(parts(one)["queued"] > 0 for one in generations) > 64 - SLOTS
    assert max(parts(one)["others"] for one in generations) > 0, "a prompt in chunks lets others wait"
    shares_ms = sum(one["device_ms"] for one in generations)
    assert 0.9 * device_ms < shares_ms <= device_ms * (1 + 1e-9), "what is missing was computed for those who had left"


def test_every_generation_has_a_ledger_and_the_last_byte_is_the_requests() -> None:
    with serving(manners=Manners(), around=Stopwatch) as live:
        for stream in (False, True):
            name = f"many-{stream}"
            body = {"prompt": ["ab", "c"], "n": 2, "max_tokens": 30, "temperature": 0, "stream": stream}
            reply = live.fetch("/v1/completions", "POST", json.dumps(body).encode(), x_request_id=name)
            assert reply.status == 200
            detail = told(live, name)
            assert detail["id"].startswith("cmpl-")
            assert (detail["prompt_tokens"], detail["completion_tokens"]) == (3, 120)
            assert [one["index"] for one in detail["generations"]] == [0, 1, 2, 3]
            assert [one["prompt_tokens"] for one in detail["generations"]] == [2, 2, 1, 1]
            assert len({one["key"] for one in detail["generations"]}) == 4
            for generation in detail["generations"]:
                check_sums(generation)
                assert generation["wall_ms"] == pytest.approx(detail["wall_ms"], abs=1e-6)
            assert detail["wall_ms"] <= Stopwatch.walls_ms[name]


def test_a_client_that_reads_late_shows_as_socket() -> None:
    stage = Stage()
    with (
        serving(stage, bring_up=long_events(stage), manners=Manners(), around=Stopwatch) as live,
        socket.socket() as connection,
    ):
        ask_and_do_not_read(connection, live)
        wait_until(lambda: len(stage.runner.rows) >= TOKENS and stage.client and not stage.client.num_in_flight)
        done_s = time.monotonic()
        wait_until(lambda: time.monotonic() - done_s > 0.3)
        (entry,) = live.fetch("/v1/requests").json["data"]
        assert entry["state"] == "running", "its last byte is not out"
        while connection.recv(1 << 20):
            if live.fetch("/v1/requests").json["data"][0]["state"] == "done":
                break
        (generation,) = told(live, entry["id"])["generations"]
    check_sums(generation)
    assert parts(generation)["socket"] > 250
    assert generation["overlapped"]["socket_ms"] > 0, "it did not read while the engine worked either"


def test_who_is_refused_or_too_late_has_a_ledger_as_far_as_it_came() -> None:
    stage = Stage()
    with serving(stage, manners=Manners()) as live:
        bad = json.dumps({"prompt": "x", "n": 0}).encode()
        assert live.fetch("/v1/completions", "POST", bad, x_request_id="bad").status == 400
        detail = told(live, "bad")
        assert (detail["id"], detail["status"], detail["generations"]) == ("bad", 400, [])
        assert sum(part["ms"] for part in detail["parts"]) == pytest.approx(detail["wall_ms"], abs=1e-6)
        stage.runner.hold()
        late = json.dumps({"prompt": "x", "max_tokens": 50, "timeout_s": 0.1}).encode()
        assert live.fetch("/v1/completions", "POST", late, x_request_id="late").status == 408
        stage.runner.open()
        wait_until(lambda: told(live, "late")["generations"][0]["device_ms"] is not None)
        detail = told(live, "late")
        assert (detail["status"], detail["error"], detail["finish_reason"]) == (408, "deadline_exceeded", "abort")
        check_sums(detail["generations"][0])
        assert detail["generations"][0]["wall_ms"] >= 100


def test_a_request_that_runs_is_shown_as_far_as_it_is() -> None:
    stage = Stage()
    stage.runner.step_s = 0.01
    with serving(stage, manners=Manners()) as live:
        stream = live.openai.completions.create(
            model="recite", prompt="abc", max_tokens=200, temperature=0, stream=True,
            extra_headers={"x-request-id": "run"},
        )  # fmt: skip
        for _ in range(5):
            next(stream)
        (entry,) = live.fetch("/v1/requests").json["data"]
        detail = told(live, "run")
        stream.close()
    assert (entry["state"], entry["finish_reason"]) == ("running", None)
    assert 5 <= entry["completion_tokens"] <= detail["completion_tokens"] < 200
    assert (detail["state"], detail["device_ms"]) == ("running", None)
    (generation,) = detail["generations"]
    named = parts(generation)
    assert tuple(named) == tuple(name for name in PARTS if name not in AFTER)
    assert 0 < named["decode"] < sum(named.values()) <= generation["wall_ms"]
    assert generation["steps"] >= 5
    assert generation["spans_from"] == "recording"
    assert {span["name"] for span in generation["spans"]} >= {"received", "tokenised", "prefill", "decode"}


def test_timings_of_an_answer_have_the_parts_so_far() -> None:
    with serving(manners=Manners()) as live:
        for stream in (False, True):
            body = {"prompt": "abc", "max_tokens": 20, "temperature": 0, "timings": True, "stream": stream}
            reply = live.fetch("/v1/completions", "POST", json.dumps(body).encode(), x_request_id="timed")
            last = reply.body if not stream else reply.body.split(b"\n\n")[-3].removeprefix(b"data: ")
            timings = json.loads(last)["choices"][0]["timings"]
            assert [part["name"] for part in timings["parts"]] == list(PARTS)
            (generation,) = told(live, "timed")["generations"]
            for part in timings["parts"]:
                assert part["ms"] <= parts(generation)[part["name"]] + 1e-9
            engine = sum(
                part["ms"] for part in timings["parts"] if part["name"] not in ("received", "tokenised", *AFTER)
            )
            assert engine == pytest.approx(timings["total_ms"], abs=1e-6)
            assert timings["device_ms"] == generation["device_ms"] > 0


def test_an_engine_that_dies_takes_its_parts_along() -> None:
    stage = Stage()
    with serving(stage, manners=Manners(), restarts=Restarts(3, first_delay_s=0.0)) as live:
        first = stage.client
        stage.ready.clear()
        stage.runner.fail = True
        body = json.dumps({"prompt": "abc", "max_tokens": 20}).encode()
        assert live.fetch("/v1/completions", "POST", body, x_request_id="lost").status == 503
        stage.runner.fail = False
        assert stage.ready.wait(20)
        assert stage.client is not first
        assert live.fetch("/v1/completions", "POST", body, x_request_id="next").status == 200
        (lost,), (following,) = (told(live, name)["generations"] for name in ("lost", "next"))
    assert lost["key"] == following["key"], "keys begin anew with an engine"
    assert tuple(parts(lost)) == ("received", "tokenised")
    assert [span["name"] for span in lost["spans"]] == ["received", "tokenised"], "the other's steps are not its own"
    check_sums(following)
