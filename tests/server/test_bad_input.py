"""Nothing that a client sends is answered with anything else than a documented 4xx that names what is wrong."""

from __future__ import annotations

import concurrent.futures
import gc
import json
import re
from typing import Any

import jsonschema
import psutil
import pytest

from tests.server.bad_input import TABLES, Case, cases
from tests.server.live import ADMIN_SECRET, Live, Stage, serving

MORE_RSS_BYTES = 64 * 2**20  # the longest bodies are 10 MB; what Python keeps of them for reuse is far below this


def check(live: Live, document: dict[str, Any], case: Case) -> None:
    reply = live.fetch(case.path, case.method, case.body, case.kind, authorization=f"Bearer {ADMIN_SECRET}")
    assert reply.status == case.status, (case.name, reply.status, reply.body[:300])
    error = reply.json["error"]
    assert set(reply.json) == {"error"}, case.name
    assert set(error) == {"message", "type", "param", "code"}, case.name
    assert error["type"] == "invalid_request_error", case.name
    assert case.word in error["message"], (case.name, error)
    assert len(error["message"]) < 400, case.name
    if case.param is not None:
        assert (error["param"] or "").startswith(case.param), (case.name, error)
    if case.path in TABLES and case.method == "POST":
        responses = document["paths"][case.path]["post"]["responses"]
        schema = responses[str(case.status)]["content"]["application/json"]["schema"]
        jsonschema.validate(reply.json, {**schema, "components": document["components"]})


def test_every_bad_input_is_a_documented_4xx_and_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    stage, every = Stage(), cases()
    assert len({case.name for case in every}) == len(every) >= 300
    with serving(stage) as live:
        document = live.fetch("/openapi.json").json
        for case in every:  # once, so that what is made on first use is there
            check(live, document, case)
        gc.collect()
        before = psutil.Process().memory_info().rss
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(check, live, document, case) for case in every]:
                done.result()
        gc.collect()
        assert psutil.Process().memory_info().rss - before < MORE_RSS_BYTES
        assert stage.client is not None
        assert stage.client.num_in_flight == 0
        assert stage.runner.rows == [], "none of them reached the engine"
        answer = live.openai.completions.create(model="recite", prompt="a", max_tokens=3, temperature=0)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 3
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_a_field_that_is_named_in_an_error_is_named_as_the_client_wrote_it(live: Live) -> None:
    body = json.dumps({"prompt": "a", "max_tokns": 1}).encode()
    error = live.fetch("/v1/completions", "POST", body).json["error"]
    assert re.fullmatch(r"max_tokns: unknown field; did you mean 'max_tokens'\?", error["message"])
