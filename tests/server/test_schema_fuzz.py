"""Requests drawn from /openapi.json, and others that it excludes, are answered as /openapi.json says."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from ridgeline.server.openapi import openapi
from tests.server.live import ADMIN_SECRET, Live

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 100  # an operation and mode; the whole takes about 20 seconds on one core
SEED = 20260101
POSTED = ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/v1/profile")
OPERATOR = {"Authorization": f"Bearer {ADMIN_SECRET}"}

text = openapi()
del text["paths"]["/v1/profile"]["post"]["security"]  # otherwise the key is drawn too
document = schemathesis.openapi.from_dict(text)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", POSTED)
def test_every_answer_is_a_documented_one(live: Live, path: str, mode: GenerationMode) -> None:
    statuses: set[int] = set()
    more = [negative_data_rejection] if mode is GenerationMode.NEGATIVE else []

    @seed(SEED)
    @settings(max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=document[path]["POST"].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call(base_url=live.url, timeout=60, headers=OPERATOR)
        case.validate_response(response, checks=CHECKS + more)
        statuses.add(response.status_code)

    ask()
    print(f"seed {SEED}: {path} {mode.value}: {sorted(statuses)}")
    # 408: a time limit that is allowed, and shorter than any answer takes. 409: a profile that is running, or is not.
    assert statuses <= ({200, 400, 404, 408, 409} if mode is GenerationMode.POSITIVE else {400, 404})
    assert 200 in statuses or mode is GenerationMode.NEGATIVE, "what the document allows is answered"


def test_the_server_is_well_afterwards(live: Live) -> None:
    answer = live.openai.completions.create(model="recite", prompt="a", max_tokens=3, temperature=0)
    assert answer.choices[0].finish_reason == "length"
