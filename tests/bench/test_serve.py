"""`bench serve` against a scripted server over real HTTP."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ridgeline.bench.datasets import Example
from ridgeline.bench.fleet import Load
from ridgeline.bench.lengths import Lengths
from ridgeline.bench.measures import measure
from ridgeline.bench.order import Order, parse_limits
from ridgeline.bench.serve import run
from ridgeline.bench.share import Share, Target, Work, run_share
from ridgeline.bench.tables import notes, print_measures
from ridgeline.bench.workload import Workload
from ridgeline.core.errors import ConfigError
from tests.bench.fake_server import Answer, Body, Script, Stream, chunk, error, event, serving, streamed
from tests.bench.hand import Screen
from tests.bench.test_measures import streamed as outcome
from tests.server.live import serving as live_serving

SHORT = Workload(input_len=Lengths(6, 6), output_len=Lengths(4, 4))


def plain(_number: int, body: Body) -> Answer:
    return streamed(body["max_tokens"], prompt_tokens=len(body["prompt"].split()))


def order(url: str, **changes: Any) -> Order:
    """A load without warm-up, so that tests can count."""
    load: dict[str, Any] = {"num_requests": 8, "warmup_requests": 0, "workload": SHORT, "timeout_s": 30.0}
    if "request_rate" not in changes:
        load["concurrency"] = 2
    return Order(url=url, **load | changes)


def written(path: Path) -> Any:
    return json.loads(path.read_text())


def measures_of(path: Path) -> Any:
    return written(path)["results"]["servers"][0]["rounds"][0]["measures"]


def test_a_closed_loop_is_measured_and_written(tmp_path: Path) -> None:
    path, screen, script = tmp_path / "run.json", Screen(), Script(plain)
    with serving(script) as url:
        code = run(order(url, json_path=path, rows=True, limits_ms={"e2e": 1e6}), screen.console, ["ridgeline", "x"])
    assert code == 0, screen.text
    m = measures_of(path)
    assert (m["requests"], m["answered"], m["tokens"], m["prompt_tokens"], m["events"]) == (8, 8, 32, 48, 32)
    assert (m["counted"], m["good"], m["errors"]) == (True, 8, {})
    assert (m["ttft_ms"]["count"], m["itl_ms"]["count"]) == (8, 24)
    assert len(written(path)["results"]["servers"][0]["rounds"][0]["requests"]) == 8
    assert written(path)["provenance"]["command"] == ["ridgeline", "x"]
    (section,) = written(path)["report"]["sections"]
    assert section["rows"][0][0] == "TTFT"
    assert f"{m['ttft_ms']['p99']:.1f}" in section["rows"][0]
    assert f"{m['tokens_per_s']:.1f} output tokens/s" in section["readings"][0]
    assert script.peak <= 2
    for word in ("TTFT", "TPOT", "ITL", "E2E", "output tokens/s", "8 of 8 requests answered"):
        assert word in screen.text


def test_bodies_carry_what_was_ordered(tmp_path: Path) -> None:
    script = Script(plain)
    with serving(script) as url:
        path = tmp_path / "run.json"
        ordered = order(
            url, ignore_eos=False, greedy=False, extra_body={"top_k": 3}, api_key="a-secret", json_path=path
        )
        assert run(ordered, Screen().console) == 0
    for body in script.bodies:
        assert (body["model"], body["stream"], body["top_k"]) == ("tiny", True, 3)
        assert body["stream_options"] == {"include_usage": True}
        assert "temperature" not in body
        assert "ignore_eos" not in body
    assert {headers["authorization"] for headers in script.headers} == {"Bearer a-secret"}
    assert "a-secret" not in path.read_text()
    assert "a-secret" not in repr(ordered)


def test_text_lengths_are_corrected_by_what_usage_reports() -> None:
    def three_a_word(_number: int, body: Body) -> Answer:
        return streamed(body["max_tokens"], prompt_tokens=3 * len(body["prompt"].split()))

    script = Script(three_a_word)
    with serving(script) as url:
        run(order(url, workload=Workload(input_len=Lengths(60, 60), output_len=Lengths(1, 1))), Screen().console)
    assert {len(body["prompt"].split()) for body in script.bodies[1:]} == {20}


def test_the_length_of_a_files_answers_is_turned_into_tokens_too(tmp_path: Path) -> None:
    def three_a_word(_number: int, body: Body) -> Answer:
        return streamed(body["max_tokens"], prompt_tokens=3 * len(body["prompt"].split()))

    talks, script = tmp_path / "talks.json", Script(three_a_word)
    turns = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "one two three four"}]
    talks.write_text(json.dumps([{"conversations": turns}]))
    with serving(script) as url:
        workload = Workload(kind="sharegpt", prompts=talks, output_len=Lengths(1, 100))
        run(order(url, workload=workload), Screen().console)
    assert {body["max_tokens"] for body in script.bodies[1:]} == {12}


@pytest.mark.parametrize("changes", [{"request_rate": 50.0}, {"concurrency": 1}])
def test_nothing_is_left_to_prepare_when_a_load_begins(tmp_path: Path, changes: dict[str, Any]) -> None:
    class Slow(Sequence[Example]):
        """Examples that take the clock's time to look at."""

        def __init__(self) -> None:
            self.looks = 0

        def __len__(self) -> int:
            self.looks += 1
            return 3

        def __getitem__(self, at: Any) -> Any:
            self.looks += 1
            return [Example("a"), Example("b"), Example("c")][at]

    examples, seen = Slow(), []
    (tmp_path / "prompts.txt").write_text("a\nb\nc\n")
    workload = Workload(kind="file", prompts=tmp_path / "prompts.txt", output_len=Lengths(2, 2))

    async def agree() -> float:
        seen.append(examples.looks)
        return time.perf_counter()

    with serving(Script(plain)) as url:
        share = Share(order(url, workload=workload, num_requests=3, **changes), Target(url, {}), 0, 1.0, examples)
        work = Work()
        asyncio.run(run_share(share, work, agree, lambda _outcome: None))
    assert seen == [examples.looks], "the file is shuffled before the load's beginning is agreed on"
    assert len(work.outcomes) == 3


def test_an_open_loop_does_not_wait_for_the_server(tmp_path: Path) -> None:
    # After the probe of the lengths nobody is answered before all have come, so waiting for any would hang.
    path, script = tmp_path / "run.json", Script(plain)
    script.ready = [(200, {"status": "ready"})]
    with serving(script) as url:
        ids = Workload(prompt_kind="ids", input_len=Lengths(4, 4), output_len=Lengths(2, 2))
        script.together = 16
        script.complete = lambda _n, body: streamed(body["max_tokens"])
        code = run(
            order(url, workload=ids, request_rate=200.0, arrivals="constant", num_requests=16, json_path=path),
            Screen().console,
        )
    assert code == 0
    assert script.peak == 16
    lateness = measures_of(path)["lateness_ms"]
    assert lateness["count"] == 16
    assert lateness["mean"] > -5, "a loop's timer may wake a little early"


def test_an_open_loop_ends_with_its_duration() -> None:
    script = Script(plain)
    with serving(script) as url:
        run(
            order(url, request_rate=50.0, arrivals="constant", num_requests=None, duration_s=0.2, concurrency=None),
            Screen().console,
        )
    assert len(script.bodies) == 1 + 10, "a probe of the lengths, and what the duration allows"


def test_failures_are_counted_by_kind(tmp_path: Path) -> None:
    answers: list[Answer | None] = [
        (429, {"error": {"message": "full", "type": "overloaded", "code": "queue_full"}}),
        (400, {"error": {"message": "too long", "type": "invalid", "code": "context_length_exceeded"}}),
        error(500, "broken"),
        None,
        Stream((chunk("a"), chunk("b")), whole=False),
        Stream((chunk("a"),)),
        Stream((chunk("a"), event({"error": {"message": "gone", "type": "server_error", "code": None}}))),
        Stream((b"data: no json\n\n",)),
        (200, {"choices": "none"}),
        streamed(3),
        streamed(3),  # never sent: silent
    ]
    path, screen = tmp_path / "run.json", Screen()
    script = Script(lambda number, _b: answers[number - 1] if number else streamed(1), silent=frozenset({11}))
    with serving(script) as url:
        code = run(order(url, concurrency=1, num_requests=len(answers), timeout_s=3.0, json_path=path), screen.console)
    assert code == 1
    m = measures_of(path)
    assert (m["refused"], m["answered"]) == (1, 1)
    assert m["errors"] == {
        "broken stream": 3, "HTTP 400 context_length_exceeded": 1, "HTTP 500": 1, "connection": 1,
        "error event server_error": 1, "no completion": 1, "timeout": 1,
    }  # fmt: skip
    assert "1 request refused (429)" in screen.text
    assert "3 x broken stream" in screen.text


def test_who_is_refused_comes_back_when_asked_to() -> None:
    script = Script(lambda number, body: (429, {}) if number == 1 else plain(number, body), retry_after="1")
    with serving(script) as url:
        screen = Screen()
        assert run(order(url, concurrency=1, num_requests=2), screen.console) == 0, "a refusal is no failure"
    assert "it asked for a pause of 1 s" in screen.text
    assert len(script.bodies) == 3


def test_a_server_without_usage_is_counted_by_events(tmp_path: Path) -> None:
    path, screen = tmp_path / "run.json", Screen(width=200)
    with serving(Script(lambda _n, body: streamed(body["max_tokens"], usage=False))) as url:
        assert run(order(url, json_path=path, include_usage=False), screen.console) == 0
    assert "events stand for tokens" in screen.text
    assert (measures_of(path)["tokens"], measures_of(path)["counted"]) == (32, False)


def test_an_answer_in_one_piece_has_no_first_token() -> None:
    whole = (200, {"choices": [{"text": "x"}], "usage": {"prompt_tokens": 1, "completion_tokens": 4}})
    screen = Screen(width=200)
    with serving(Script(lambda _n, _b: whole)) as url:
        assert run(order(url), screen.console) == 0
    assert "there is no first token to see" in screen.text


def test_several_processes_send_one_load(tmp_path: Path) -> None:
    path, script = tmp_path / "run.json", Script(plain)
    with serving(script) as url:
        assert run(order(url, client_processes=2, num_requests=7, json_path=path), Screen().console) == 0
        alone = Script(plain)
    with serving(alone) as url:
        assert run(order(url, num_requests=7), Screen().console) == 0
    assert measures_of(path)["answered"] == 7
    assert sorted(b["prompt"] for b in script.bodies) == sorted(b["prompt"] for b in alone.bodies)
    assert len(written(path)["results"]["servers"][0]["rounds"][0]["cpu_shares"]) == 2


def test_what_the_other_processes_did_is_kept_when_one_ends_too_early(tmp_path: Path) -> None:
    def complete(number: int, body: Body) -> Answer:
        if number == 8:
            multiprocessing.active_children()[0].kill()
        return plain(number, body)

    path, screen = tmp_path / "run.json", Screen(width=200)
    with serving(Script(complete)) as url:
        assert run(order(url, client_processes=2, num_requests=24, json_path=path), screen.console) == 1
    assert "1 of the client processes ended too early" in screen.text
    assert measures_of(path)["answered"] == 12


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no way to send Ctrl-C to one thread of one process")
@pytest.mark.parametrize(("happens", "code", "told"), [("ctrl-c", 130, "Interrupted"), ("death", 1, "before it began")])
def test_what_happens_while_the_processes_start_is_told(happens: str, code: int, told: str) -> None:
    def disturb() -> None:
        while len(children := multiprocessing.active_children()) < 2:
            time.sleep(0.001)
        if happens == "death":
            children[0].kill()
        else:
            os.kill(os.getpid(), signal.SIGINT)

    screen, thread = Screen(width=200), threading.Thread(target=disturb)
    with serving(Script(plain)) as url:
        thread.start()
        assert run(order(url, client_processes=2), screen.console) == code
        thread.join()
    assert told in screen.text
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("cpu_share", "bound"), [(0.79, False), (0.81, True)])
def test_a_busy_client_is_marked(cpu_share: float, bound: bool) -> None:
    load = Load([outcome(1, (1.0, 2.0), 2, 3.0)], [0.1, cpu_share])
    m, screen = measure(load.outcomes), Screen(width=200)
    assert m is not None
    assert load.client_bound is bound
    print_measures(screen.console, m, load, {})
    assert ("CLIENT-BOUND" in screen.text) is bound


def test_lateness_of_the_client_is_told() -> None:
    late = [outcome(1, (1.0,), 1, 3.0, sent_s=1.0)]
    load = Load(late, [0.1])
    m = measure([o.__class__(**{n: getattr(o, n) for n in o.__slots__} | {"planned_s": 0.5}) for o in late])
    assert m is not None
    assert any("sent late" in note for note in notes(m, load))


def test_two_servers_take_turns_with_the_same_requests(tmp_path: Path) -> None:
    path, screen = tmp_path / "run.json", Screen(width=200)
    turns: list[str] = []

    def told(name: str) -> Callable[[int, Body], Answer]:
        def complete(number: int, body: Body) -> Answer:
            turns.append(name)
            return plain(number, body)

        return complete

    a, b = Script(told("A")), Script(told("B"))
    with serving(a) as url, serving(b) as against:
        ordered = order(
            url, against=against, rounds=5, num_requests=3, json_path=path, limits_ms={"e2e": 1e-6}
        )  # fmt: skip
        assert run(ordered, screen.console) == 0
    assert re.search(r"Not compared, as a round had 0 or none of it: .*goodput/s\.", screen.text)
    prompts = [body["prompt"] for body in b.bodies]
    assert sorted(body["prompt"] for body in a.bodies[1:]) == sorted(prompts), "the first one is the probe"
    assert len(set(prompts)) == 15, "a round has its own prompts"
    assert turns == list("A" * 4 + "BBB" + "BBB" + "AAA" + "AAA" + "BBB" + "BBB" + "AAA" + "AAA" + "BBB")
    titles = [section["title"] for section in written(path)["report"]["sections"]]
    assert titles[2:] == ["Round by round", "One against the other"]
    found = written(path)["results"]["ratios"]["E2E p50"]
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["rounds"] == 5
    assert "interval" in screen.text
    assert "%" not in screen.text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no way to send Ctrl-C to one thread of one process")
@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_prints_what_there_is(tmp_path: Path, processes: int) -> None:
    def complete(number: int, body: Body) -> Answer:
        if number == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(number, body)

    path, screen = tmp_path / "run.json", Screen()
    with serving(Script(complete, silent=frozenset({6, 7}))) as url:
        ordered = order(url, num_requests=20, json_path=path, client_processes=processes)
        assert run(ordered, screen.console) == 130
    assert "Interrupted; " in screen.text
    assert written(path)["interrupted"] is True
    assert 3 <= measures_of(path)["answered"] < 20


@pytest.mark.parametrize("where", ["ready", "models"])
def test_a_key_that_is_wanted_is_no_readiness(where: str) -> None:
    script = Script(plain)
    if where == "ready":
        script.ready = [error(401, "no key")]
    else:
        script.models = error(401, "no key")
    with serving(script) as url, pytest.raises(ConfigError, match=r"wants a key \(HTTP 401: no key\).*OPENAI_API_KEY"):
        run(order(url), Screen().console)
    assert script.bodies == []


def test_what_a_server_writes_does_not_drive_the_terminal(tmp_path: Path) -> None:
    script = Script(lambda _n, _b: (400, {"error": {"message": "a\x1b[2Jb", "code": "c\x1b[2J"}}))
    script.models = (200, {"data": [{"id": "tiny\x1b]0;x\x07"}]})
    with serving(script) as url:
        screen = Screen(width=200)
        run(order(url, num_requests=2), screen.console)
    assert "tiny\ufffd]0;x\ufffd at" in screen.text
    assert "2 x HTTP 400 c\ufffd[2J" in screen.text
    assert "\x1b" not in screen.text


def test_a_starting_server_that_writes_nonsense_is_waited_for() -> None:
    nonsense = (503, {"status": "loading", "percent": "half", "done": [1], "phase": {"a": "\x1b"}})
    with serving(Script(plain, ready=[nonsense, (200, {"status": "ready"})])) as url:
        assert run(order(url), Screen().console) == 0


def test_no_server_is_one_sentence() -> None:
    screen = Screen()
    assert run(order("http://127.0.0.1:9"), screen.console) == 1
    assert "no server answers at http://127.0.0.1:9" in screen.text


def test_a_real_server_with_a_scripted_engine(tmp_path: Path) -> None:
    path, screen = tmp_path / "run.json", Screen(width=120)
    with live_serving() as live:
        ordered = order(live.url, extra_body={"timings": True}, rows=True, json_path=path, request_rate=100.0)
        assert run(ordered, screen.console) == 0, screen.text
    m = measures_of(path)
    assert (m["answered"], m["tokens"], m["counted"]) == (8, 32, True)
    assert m["ttft_ms"]["count"] == 8
    requests = written(path)["results"]["servers"][0]["rounds"][0]["requests"]
    assert all(r["reply"]["timings"]["total_ms"] > 0 for r in requests)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"concurrency": 1, "request_rate": 1.0}, "--concurrency .* or --request-rate"),
        ({"concurrency": None}, "--concurrency .* or --request-rate"),
        ({"num_requests": None}, "--num-requests, --duration-s"),
        ({"arrivals": "poison"}, "did you mean 'poisson'"),
        ({"request_rate": float("nan"), "concurrency": None}, "--request-rate"),
        ({"client_processes": 9}, "--client-processes"),
        ({"extra_body": {"prompt": "x"}}, "--extra-body"),
        ({"extra_body": {"model": "x"}}, "--model sets it"),
        ({"extra_body": {"n": 2}}, "one answer"),
        ({"extra_body": {"best_of": 2}}, "one answer"),
        ({"limits_ms": {"tttf": 1.0}}, "did you mean 'ttft'"),
        ({"limits_ms": {"ttft": 0.0}}, "above 0 ms"),
        ({"timeout_s": 0.0}, "--timeout-s"),
        ({"against": "nowhere"}, "--against"),
    ],
)
def test_orders_that_make_no_sense_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Order(**{"concurrency": 2, "num_requests": 4} | wrong)


def test_limits_are_read() -> None:
    assert parse_limits(["ttft:200", "e2e: 1.5e3"]) == {"ttft": 200.0, "e2e": 1500.0}
    with pytest.raises(ConfigError, match="ttft:200"):
        parse_limits(["ttft=3"])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"kind": "fixd"}, "did you mean 'fixed'"),
        ({"kind": "file"}, "--prompts"),
        ({"prompts": Path("x")}, "--prompts"),
        ({"input_len": Lengths(1, 2)}, "uniform or lognormal"),
        ({"vocab": 0}, "--vocab"),
        ({"prompt_kind": "id"}, "did you mean 'ids'"),
    ],
)
def test_workloads_that_make_no_sense_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Workload(**wrong)
