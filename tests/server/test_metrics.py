"""/metrics: every request is counted once, however it ended, and no total ever falls."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from ridgeline.engine.messages import Counters
from ridgeline.server.limits import Limits
from ridgeline.server.manners import Manners
from ridgeline.server.metrics import Totals
from tests.server.live import Live, Stage, serving
from tests.server.test_gate import wait_until

Samples = dict[tuple[str, str], float]
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def scrape(live: Live) -> Samples:
    """(name, the value of its last label but model_name and le) -> value."""
    reply = live.fetch("/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    found: Samples = {}
    for family in text_string_to_metric_families(reply.body.decode()):
        for sample in family.samples:
            labels = [value for name, value in sample.labels.items() if name not in ("model_name", "le")]
            if "le" not in sample.labels:
                found[sample.name, "".join(labels)] = sample.value
    return found


def post(live: Live, body: dict[str, Any]) -> int:
    return live.fetch("/v1/completions", "POST", json.dumps(body).encode()).status


def test_what_requests_took_is_counted_once() -> None:
    stage = Stage()
    with serving(stage) as live:
        assert post(live, {"prompt": ["abc", "de"], "max_tokens": 4, "temperature": 0}) == 200
        assert post(live, {"prompt": "abc", "max_tokens": 9, "temperature": 0, "stop": "e"}) == 200
        assert post(live, {"prompt": "", "max_tokens": 9}) == 400
        seen = scrape(live)
        assert seen["vllm:prompt_tokens_total", ""] == 8
        assert seen["vllm:request_success_total", "length"] == 2
        assert seen["vllm:request_success_total", "stop"] == 1
        assert seen["vllm:generation_tokens_total", ""] == seen["ridgeline_step_rows_sum", ""] >= 8 + 7
        assert seen["ridgeline_steps_total", ""] == len(stage.runner.rows)
        assert seen["ridgeline_positions_total", ""] >= 8 + 15 - 3
        for name in (
            "vllm:time_to_first_token_seconds", "vllm:e2e_request_latency_seconds", "vllm:request_queue_time_seconds",
            "vllm:request_prefill_time_seconds", "vllm:request_time_per_output_token_seconds",
            "vllm:request_generation_tokens",
        ):  # fmt: skip
            assert seen[f"{name}_count", ""] == 3, name
        assert seen["vllm:time_to_first_token_seconds_sum", ""] < seen["vllm:e2e_request_latency_seconds_sum", ""]
        assert seen["vllm:request_generation_tokens_sum", ""] == 8 + 7
        assert seen["ridgeline_http_responses_total", "200"] == 2
        assert seen["ridgeline_http_responses_total", "400"] == 1
        for gauge in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
            assert seen[gauge, ""] == 0
        assert seen["ridgeline_queued_requests", ""] == seen["ridgeline_queued_tokens", ""] == 0


def test_refused_and_aborted_requests_are_counted_too() -> None:
    stage = Stage()
    with serving(stage, manners=Manners(Limits(queued_requests=1))) as live:
        stage.runner.hold()
        stage.runner.let(1)
        stream = live.openai.completions.create(
            model="recite", prompt="x", max_tokens=100, temperature=0, stream=True
        )  # fmt: skip
        next(stream)
        assert stage.runner.collecting.wait(10)
        assert post(live, {"prompt": "x", "timeout_s": 0.05}) == 408
        assert scrape(live)["vllm:num_requests_running", ""] == 1
        stream.close()
        assert {stage.aborted.get(timeout=10), stage.aborted.get(timeout=10)} == {1, 2}
        stage.runner.open()
        assert post(live, {"prompt": ["x", "y"]}) == 400, "more than can ever wait"
        wait_until(lambda: scrape(live).get(("vllm:request_success_total", "abort")) == 2)
        seen = scrape(live)
        assert seen["vllm:prompt_tokens_total", ""] == 1, "the second never began"
        assert seen["ridgeline_http_responses_total", "408"] == 1
        assert seen["ridgeline_queued_requests", ""] == 0


def test_before_the_engine_is_ready_there_are_no_figures_of_it() -> None:
    with serving(loaded=False) as live:
        seen = scrape(live)
        assert seen["ridgeline_queued_requests_limit", ""] == 1024
        assert ("vllm:num_requests_running", "") not in seen


def test_totals_go_on_when_the_engine_begins_again_at_zero() -> None:
    totals = Totals()
    assert totals.with_life(Counters(steps=10, positions=100))["positions"] == 100
    assert totals.with_life(Counters(steps=12, positions=130))["positions"] == 130
    totals.end(Counters(steps=12, positions=130))
    assert totals.with_life(Counters())["positions"] == 130
    assert totals.with_life(Counters(steps=20, positions=7))["positions"] == 137, "more steps than the life before"
    totals.end(Counters(steps=20, positions=7))
    assert totals.with_life(Counters(steps=1, positions=2))["steps"] == 33


def test_two_applications_share_nothing() -> None:
    with serving() as one, serving() as other:
        assert post(one, {"prompt": "abc", "max_tokens": 1}) == 200
        assert scrape(one)["vllm:prompt_tokens_total", ""] == 3
        assert ("vllm:prompt_tokens_total", "") not in scrape(other)


def test_the_table_in_the_docs_is_what_is_exported() -> None:
    with serving(manners=Manners(Limits(queued_requests=1))) as live:
        assert post(live, {"prompt": "abc", "max_tokens": 2}) == 200
        text = live.fetch("/metrics").body.decode()
    exported = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    exported = {name for name in exported if not name.endswith("_created")}
    documented = set(re.findall(r"^\| `([^`{]+)", DOCS.read_text(), re.MULTILINE))
    assert documented == exported
