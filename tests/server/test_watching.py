"""Who may see which requests, what is kept of them, and the server's pulse."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jsonschema
import pytest

from ridgeline.core.flightfile import decoded
from ridgeline.core.types import End, Timings, WallParts
from ridgeline.engine.channel import Report
from ridgeline.engine.course import Course
from ridgeline.engine.recorder import NoRecorder
from ridgeline.server.auth import ADMIN, read_keys
from ridgeline.server.front import Front
from ridgeline.server.gate import _from_here
from ridgeline.server.live import LISTENERS
from ridgeline.server.live import Live as Pulse
from ridgeline.server.manners import Manners
from ridgeline.server.openapi import openapi
from ridgeline.server.recent import MOST, Recent, Window
from ridgeline.server.requests import KEPT, KEPT_RUNS, Record, Requests, Run
from ridgeline.server.service import Service
from tests.server.live import Live, Stage, serving
from tests.server.test_gate import wait_until

Json = dict[str, Any]
ALICE, BOB, BOSS = "secret-of-alice", "secret-of-bob", "secret-of-the-boss"
PATHS = ("/v1/requests", "/v1/requests/x", "/v1/recording", "/v1/live")


def everything(_record: Record) -> bool:
    return True


def check(name: str, value: object) -> None:
    document = openapi()
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


def post(live: Live, name: str, secret: str | None = None, **more: Any) -> Json:
    body = json.dumps({"prompt": "abc", "max_tokens": 3, "temperature": 0} | more).encode()
    headers = {"x_request_id": name} | ({"authorization": f"Bearer {secret}"} if secret else {})
    reply = live.fetch("/v1/completions", "POST", body, **headers)
    assert reply.status == 200
    answer: Json = reply.json
    return answer


@pytest.fixture(scope="module")
def locked() -> Iterator[Live]:
    keys, _ = read_keys(None, f"alice:{ALICE},bob:{BOB}")
    admins, _ = read_keys(None, f"boss:{BOSS}", ADMIN)
    with serving(manners=Manners(keys=keys, admins=admins)) as live:
        yield live


def test_everybody_sees_their_own_and_the_operator_sees_all(locked: Live) -> None:
    ids = {who: post(locked, f"of-{who}", secret)["id"] for who, secret in (("alice", ALICE), ("bob", BOB))}

    def listed(secret: str) -> list[str]:
        return [
            one["request_id"] for one in locked.fetch("/v1/requests", authorization=f"Bearer {secret}").json["data"]
        ]

    assert (listed(ALICE), listed(BOB), listed(BOSS)) == (["of-alice"], ["of-bob"], ["of-bob", "of-alice"])
    for name in ("of-alice", ids["alice"]):
        statuses = [
            locked.fetch(f"/v1/requests/{name}", authorization=f"Bearer {one}").status for one in (ALICE, BOB, BOSS)
        ]
        assert statuses == [200, 404, 200], "another's request does not exist"
    assert locked.fetch("/v1/requests/of-nobody", authorization=f"Bearer {BOSS}").json["error"]["code"] == (
        "request_not_found"
    )


def test_a_name_that_two_gave_leads_everybody_to_their_own(locked: Live) -> None:
    ids = {secret: post(locked, "the-same", secret)["id"] for secret in (ALICE, BOB)}
    for secret, id in ids.items():
        assert locked.fetch("/v1/requests/the-same", authorization=f"Bearer {secret}").json["id"] == id


@pytest.mark.parametrize("path", PATHS)
def test_without_a_key_nobody_sees_anything(locked: Live, path: str) -> None:
    for reply in (locked.fetch(path), locked.fetch(path, authorization="Bearer nonsense")):
        assert (reply.status, reply.json["error"]["code"]) == (401, "invalid_api_key")


def test_the_recording_is_the_operators(locked: Live) -> None:
    reply = locked.fetch("/v1/recording", authorization=f"Bearer {ALICE}")
    assert (reply.status, reply.json["error"]["code"]) == (403, "admin_key_required")
    id = post(locked, "recorded", ALICE)["id"]
    reply = locked.fetch("/v1/recording?steps=3", authorization=f"Bearer {BOSS}")
    assert reply.status == 200
    assert reply.headers["content-disposition"].startswith('attachment; filename="recording-')
    check("Recording", reply.json)
    recording = decoded(reply.body)
    assert len(recording.steps) == 3
    assert f"{id}-0" in recording.names.values()
    for wrong in ("0", "-1", "x", "1e3", "100001", "9" * 5000):
        reply = locked.fetch(f"/v1/recording?steps={wrong}", authorization=f"Bearer {BOSS}")
        assert (reply.status, reply.json["error"]["param"]) == (400, "steps")


@pytest.mark.parametrize("path", PATHS[:3])
def test_without_keys_this_machine_sees_all_and_a_foreign_page_nothing(path: str) -> None:
    with serving(manners=Manners()) as live:
        post(live, "x")
        assert live.fetch(path).status == 200
        assert live.fetch(path, host="[::1]:8000").status == 200
        for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", ""):
            reply = live.fetch(path, host=host)
            assert (reply.status, reply.json["error"]["code"]) == (403, "admin_key_required"), host
        forwarded = live.fetch(path, x_forwarded_for="203.0.113.9")
        assert forwarded.status == 403, "it came through a proxy on this machine"


def test_another_machine_is_not_this_one() -> None:
    headers = {b"host": b"localhost:8000"}
    for address, here in (("127.0.0.1", True), ("::1", True), ("127.8.8.8", True), ("192.168.0.7", False), ("", False)):
        assert _from_here({"client": (address, 1)}, headers) is here
    assert not _from_here({"client": None}, headers)


def test_with_admin_keys_alone_requests_are_the_admins() -> None:
    admins, _ = read_keys(None, f"boss:{BOSS}", ADMIN)
    with serving(manners=Manners(admins=admins)) as live:
        post(live, "x")
        assert live.fetch("/v1/requests").status == 401
        assert len(live.fetch("/v1/requests", authorization=f"Bearer {BOSS}").json["data"]) == 1


def test_answers_are_as_the_document_says() -> None:
    with serving(manners=Manners()) as live:
        post(live, "x", n=2)
        assert live.fetch("/v1/completions", "POST", b"{}", x_request_id="bad").status == 400
        listed = live.fetch("/v1/requests").json
        for entry in listed["data"]:
            check("RequestEntry", entry)
        for name in ("x", "bad"):
            check("RequestDetail", live.fetch(f"/v1/requests/{name}").json)


def test_an_engine_without_a_recorder_says_so_and_stamps_are_drawn() -> None:
    with serving(Stage(flight=NoRecorder()), manners=Manners()) as live:
        post(live, "x")
        reply = live.fetch("/v1/recording")
        assert (reply.status, reply.json["error"]["code"]) == (404, "not_recorded")
        (generation,) = live.fetch("/v1/requests/x").json["generations"]
        assert generation["spans_from"] == "stamps"
        assert generation["spans"]


# What is kept.


def record(number: int, key: str | None = None) -> Record:
    return Record(f"request-{number}", key, "m", 0, 0, answer_id=f"cmpl-{number}")


def run(index: int) -> Run:
    course = Course(index, 0)
    course.answer(End(index, "length", 0, Timings(1, 0, 2, 3, 4, 5, 6, 0, None, WallParts(), 7)))
    course.close(5)
    made = Run(index, course, 3, [])
    made.settle(5, "length")
    return made


def test_the_1001st_makes_the_first_forgotten() -> None:
    requests = Requests()
    for number in range(KEPT + 1):
        requests.open(record(number))
    assert len(requests.newest(everything)) == KEPT == 1000
    assert requests.find("request-0", everything) is None
    assert requests.find("cmpl-0", everything) is None
    assert requests.find("cmpl-1", everything) is not None
    assert requests.newest(everything, 1)[0].id == f"request-{KEPT}"


def test_requests_of_many_generations_are_fewer() -> None:
    requests, runs = Requests(), 0
    for number in range(300):
        opened = requests.open(record(number))
        for index in range(64):
            requests.begun(opened, run(index))
            runs = sum(len(one.runs) for one in requests.newest(everything))
            assert runs <= KEPT_RUNS
    assert runs > KEPT_RUNS - 64
    old = requests.newest(everything)[-1]
    for number in range(KEPT):
        requests.open(record(number))
    requests.begun(old, run(0))  # it still runs, and was forgotten
    for _ in range(3):
        requests.begun(requests.newest(everything)[0], run(0))
    assert sum(len(one.runs) for one in requests.newest(everything)) == 3
    assert len(requests.newest(everything)) == KEPT


def test_an_hour_of_traffic_leaves_nothing_behind() -> None:
    now_s = 0.0
    requests, recent = Requests(), Recent(clock=lambda: now_s)

    def minutes(count: int) -> int:
        nonlocal now_s
        for _ in range(count * 60 * 10):
            now_s += 0.1
            number = int(now_s * 10)
            opened = requests.open(record(number))
            one = run(number)
            requests.begun(opened, one)
            opened.close(number)
            recent.first_token(number)
            assert one.course.end is not None
            recent.ended(one.course.end.timings, 0, 5)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early, late = minutes(10), minutes(50)
    finally:
        tracemalloc.stop()
    assert late < 1.1 * early
    assert early < 4 * 2**20, "a thousand requests of one generation"


def test_percentiles_are_of_the_last_minute_and_bounded() -> None:
    window = Window()
    assert window.percentiles(0) is None
    for value in range(1, 101):
        window.add(value, value)
    assert window.percentiles(100) == {"p50": 70, "p95": 97}
    assert window.percentiles(159) == {"p50": 99, "p95": 100}
    assert window.percentiles(161) is None
    for _ in range(3 * MOST):
        window.add(1, 200)
    assert len(window._values) == MOST


# The pulse.


@contextlib.contextmanager
def watching(live: Live) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", live.server.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/live")
        response = connection.getresponse()
        with contextlib.closing(response):
            yield response


def next_sample(response: http.client.HTTPResponse) -> Json:
    data = response.readline()
    assert response.readline() == b"\n"
    sample: Json = json.loads(data.removeprefix(b"data: "))
    return sample


def test_the_pulse_is_as_the_document_says() -> None:
    stage = Stage()
    stage.runner.step_s = 0.01
    with serving(stage, manners=Manners()) as live, watching(live) as response:
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        check("Live", next_sample(response))
        busy = threading.Thread(target=post, args=(live, "busy"), kwargs={"max_tokens": 150})
        busy.start()
        wait_until(lambda: stage.client and stage.client.counters.running)
        next_sample(response)
        sample = next_sample(response)
        busy.join()
        check("Live", sample)
        assert sample["running"] == 1
        assert 0 < sample["steps_per_s"] <= 100
        assert sample["mean_rows"] == pytest.approx(1)
        assert sample["tokens_per_s"] == pytest.approx(sample["steps_per_s"], rel=0.05)
        assert sample["step_ms"] > 10
        assert (sample["num_blocks"], sample["mbu"], sample["prefix_hit_rate"]) == (256, None, None)
        assert sample["ttft_ms"]["p50"] == sample["ttft_ms"]["p95"] > 0
        assert sample["e2e_ms"] is None, "it runs"
        assert [one["request_id"] for one in sample["requests"]] == ["busy"]


def test_the_pulse_ends_when_the_server_drains_and_holds_it_up_for_nobody() -> None:
    with serving(manners=Manners(), drain_s=20.0) as live, watching(live) as response:
        next_sample(response)
        live.server.stop()
        rest = response.read()
        assert rest == b"" or rest.endswith(b"\n\n")
        assert live.wait() == 0


def test_listeners_have_a_bound() -> None:
    with serving(manners=Manners()) as live, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(contextlib.closing(_listener(live))) for _ in range(LISTENERS)]
        assert len(sockets) == LISTENERS
        reply = live.fetch("/v1/live")
        assert (reply.status, reply.headers["retry-after"]) == (429, "5")


def _listener(live: Live) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", live.server.port, timeout=20)
    connection.request("GET", "/v1/live")
    assert connection.getresponse().status == 200
    return connection


def test_one_sampler_serves_all_and_nothing_runs_when_nobody_listens() -> None:
    @contextlib.asynccontextmanager
    async def never(_report: Report) -> AsyncIterator[Service]:
        await asyncio.Event().wait()
        yield  # type: ignore[misc]

    async def watch() -> None:
        front = Front(never)
        front.start()
        await asyncio.sleep(0)
        idle = asyncio.all_tasks()
        pulse = Pulse(front, Manners().books(), period_s=0.001)
        listeners = [pulse.listen(everything) for _ in range(5)]
        samples = await asyncio.gather(*(anext(one) for one in listeners))
        assert len({sample["at_s"] for sample in samples}) == 1
        assert len(asyncio.all_tasks() - idle) == 1
        assert samples[0]["running"] == samples[0]["num_blocks"] == 0
        for one in listeners:
            await one.aclose()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == idle
        assert pulse.listeners == 0
        again = pulse.listen(everything)
        assert (await anext(again))["requests"] == []
        front.drain()
        with pytest.raises(StopAsyncIteration):
            await anext(again)
        await front.stop()

    asyncio.run(watch())
