"""Both modes against a scripted server over real HTTP."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from ridgeline.bench.client import run
from ridgeline.bench.modes import CHOICES
from ridgeline.bench.options import MODES, ClientOptions
from tests.bench.fake_server import Answer, Body, Script, completion, error, serving
from tests.bench.hand import HandClock, Screen


def in_batches_of(size: int) -> Any:
    """Request i arrives i x 10 ms after the first; each batch takes 400 ms from its closing."""

    def complete(number: int, body: Body) -> Answer:
        group, place = divmod(number, size)
        arrival_s, closed_s = 50 + number / 100, 50 + size / 100 + group * 0.4
        window_ms = (size - place) * 10.0 if group == 0 else 0.0
        queued_ms = (closed_s - arrival_s) * 1e3 - window_ms
        record = {
            "serial": 3 + group,
            "size": size,
            "closed": "full",
            "wait_ms": size * 10.0,
            "opened_s": closed_s - size / 100,
            "closed_s": closed_s,
            "padded_length": 40,
            "steps": body["max_tokens"],
            "positions": 1000,
            "padding": 250,
            "wasted": 0.25,
            "kv_bytes": 2**20,
        }
        timings = {
            "received_ms": 0,
            "window_ms": window_ms,
            "queued_ms": queued_ms,
            "prefill_ms": 100.0,
            "decode_ms": 300.0 - 20 * place,
            "total_ms": window_ms + queued_ms + 400.0 - 20 * place,
            "arrival_s": arrival_s,
            "steps": body["max_tokens"],
            "mean_rows": float(size),
            "preemptions": 0,
            "batch": record,
        }
        return completion(timings, prompt_tokens=5, tokens=body["max_tokens"])

    return complete


def plain(_number: int, body: Body) -> Answer:
    return completion(None, tokens=body["max_tokens"])


def test_every_mode_has_an_object() -> None:
    assert set(CHOICES) == set(MODES)


def test_concurrent_draws_requests_and_lists_batches() -> None:
    screen = Screen()
    script = Script(in_batches_of(4), together=8)
    with serving(script) as url:
        code = run(ClientOptions(url=url, num_requests=8, max_tokens=8), screen.console, HandClock())
    assert code == 0
    assert "tiny at http://127.0.0.1" in screen.lines[0]
    drawn = [line for line in screen.lines if line.endswith(" ms") and "+" in line]
    assert len(drawn) == 8
    assert sum("." in line for line in drawn) == 4
    assert sum("---" in line for line in drawn) == 4
    assert sum(line.split()[:6] == ["1", "4", "full", "40.0", "ms", "40"] for line in screen.lines) == 1
    assert "Batches of 4 and 4; 25 % of the computed positions were padding." in screen.text


def test_the_open_loop_keeps_its_beat_while_nothing_is_answered() -> None:
    # The server answers nobody before all sixteen have come, so waiting for any of them would hang.
    script = Script(plain, together=16)
    with serving(script) as url:
        clock = HandClock()
        assert run(ClientOptions(url=url, delay_ms=10, timeout_s=20), Screen().console, clock) == 0
    assert clock.time_s - 1000 == pytest.approx(0.15)
    assert script.peak == 16


def test_bodies_ask_for_comparable_answers_of_different_lengths() -> None:
    script = Script(plain)
    with serving(script) as url:
        run(ClientOptions(url=url, seed=3), Screen().console, HandClock())
    assert len({body["prompt"] for body in script.bodies}) == 16
    assert {16 <= body["max_tokens"] <= 48 for body in script.bodies} == {True}
    assert len({body["max_tokens"] for body in script.bodies}) > 4
    for body in script.bodies:
        assert body["model"] == "tiny"
        assert (body["temperature"], body["ignore_eos"], body["timings"]) == (0, True, True)


def test_one_seed_gives_one_load() -> None:
    def load(seed: int) -> list[tuple[str, int]]:
        script = Script(plain)
        with serving(script) as url:
            run(ClientOptions(url=url, seed=seed, num_requests=20), Screen().console, HandClock())
        return sorted((body["prompt"], body["max_tokens"]) for body in script.bodies)

    assert load(5) == load(5)
    assert load(5) != load(6)


def test_benchmark_keeps_each_level_in_flight_with_equal_shapes() -> None:
    screen = Screen()
    script = Script(in_batches_of(4))
    with serving(script) as url:
        code = run(ClientOptions(mode="benchmark", url=url, levels=(1, 2, 8)), screen.console)
    assert code == 0
    # Warm-ups of 1, 2 and 8 short requests before 8, 8 and 16 measured ones.
    assert [body["max_tokens"] for body in script.bodies] == [4] + [32] * 8 + [4] * 2 + [32] * 8 + [4] * 8 + [32] * 16
    assert len({body["prompt"] for body in script.bodies}) == 1
    assert 1 <= script.peak <= 8
    rows = [line.split()[0] for line in screen.lines if line[:6].strip().isdigit()]
    assert rows == ["1", "2", "8"]
    assert "that --batching one would reach here" in screen.text


def test_a_closed_loop_reaches_its_level() -> None:
    # The level's requests are answered only when all four of the first wave are there.
    script = Script(plain, together=4)
    with serving(script) as url:
        options = ClientOptions(mode="benchmark", url=url, levels=(4,), timeout_s=20)
        assert run(options, Screen().console) == 0
    assert script.peak == 4


def test_another_server_is_measured_by_the_client_alone() -> None:
    for mode in MODES:
        screen = Screen(width=300)
        script = Script(plain, ready=[], models=(404, {}))
        with serving(script) as url:
            assert run(ClientOptions(mode=mode, url=url, levels=(1,)), screen.console) == 0
        assert "this is not a Ridgeline server" in screen.text
        assert "tokens" in screen.text
        assert "timings" not in script.bodies[0]
        assert "model" not in script.bodies[0]


def test_errors_are_counted_by_kind_and_the_run_goes_on() -> None:
    told = in_batches_of(4)

    def complete(number: int, body: Body) -> Answer | None:
        if number in (1, 2, 4):
            return error(503, "the [bold]engine[/bold] is gone")
        return None if number == 5 else told(number, body)

    screen = Screen()
    with serving(Script(complete, silent=frozenset({6}))) as url:
        options = ClientOptions(url=url, num_requests=8, timeout_s=0.5)
        assert run(options, screen.console, HandClock()) == 1
    assert "5 of 8 requests failed:" in screen.text
    assert "  3 x HTTP 503: the [bold]engine[/bold] is gone" in screen.lines
    assert "  1 x connection lost (ServerDisconnectedError)" in screen.lines
    assert "  1 x no answer within 0.5 s" in screen.lines
    assert sum("failed: HTTP 503" in line for line in screen.lines) == 3
    assert "3 requests and" in screen.text


def test_an_answer_that_is_no_completion_is_a_failure() -> None:
    screen = Screen()
    with serving(Script(lambda _n, _b: (200, {"choices": []}))) as url:
        assert run(ClientOptions(url=url, num_requests=2), screen.console, HandClock()) == 1
    assert "2 of 2 requests failed:" in screen.text
    assert "2 x an answer that is no completion (IndexError" in screen.text


def test_a_level_that_fails_whole_is_the_last() -> None:
    screen = Screen()
    script = Script(lambda _n, _b: error(500, "broken"))
    with serving(script) as url:
        assert run(ClientOptions(mode="benchmark", url=url), screen.console) == 1
    assert len(script.bodies) == 9
    assert "9 x HTTP 500: broken" in screen.text


def test_the_run_file_has_everything(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with serving(Script(in_batches_of(4))) as url:
        options = ClientOptions(url=url, num_requests=4, delay_ms=25, seed=9, json_path=path)
        assert run(options, Screen().console, HandClock()) == 0
    told = json.loads(path.read_text())
    assert told["options"]["seed"] == 9
    assert told["options"]["url"] == url
    assert told["server"]["ridgeline"]["batching"] == "dynamic"
    assert told["provenance"]["python"].startswith("3.")
    assert told["started_at"].endswith("+00:00")
    assert told["interrupted"] is False
    assert [r["number"] for r in told["requests"]] == [1, 2, 3, 4]
    assert [r["sent_s"] for r in told["requests"]] == pytest.approx([0, 0.025, 0.05, 0.075], abs=1e-6)
    assert told["requests"][0]["reply"]["timings"]["batch"]["kv_bytes"] == 2**20
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_run_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    screen = Screen()
    with serving(Script(plain)) as url:
        options = ClientOptions(url=url, num_requests=1, json_path=tmp_path)  # a folder is no file
        assert run(options, screen.console, HandClock()) == 1
    assert "the run file could not be written" in screen.text
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no way to send Ctrl-C to one thread of one process")
def test_ctrl_c_prints_and_writes_what_there_is(tmp_path: Path) -> None:
    told = in_batches_of(1)

    def complete(number: int, body: Body) -> Answer:
        if number == 4:
            os.kill(os.getpid(), signal.SIGINT)
        answer: Answer = told(number, body)
        return answer

    screen = Screen()
    path = tmp_path / "run.json"
    with serving(Script(complete, silent=frozenset({4}))) as url:
        options = ClientOptions(mode="benchmark", url=url, levels=(1, 2), json_path=path)
        assert run(options, screen.console) == 130
    assert "Interrupted; 4 requests had ended." in screen.text
    assert [line.split()[0] for line in screen.lines if line[:6].strip().isdigit()] == ["1"]
    written = json.loads(path.read_text())
    assert written["interrupted"] is True
    assert len(written["requests"]) == 4
