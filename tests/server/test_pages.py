"""The documentation tells the truth, and the pages work without any other host."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import ridgeline.server
from ridgeline.server.auth import read_keys
from ridgeline.server.gate import Doors
from ridgeline.server.manners import Manners
from tests.server.browser import browsing, chromium
from tests.server.live import TEXT, Live, Stage, serving

WEB = Path(ridgeline.server.__file__).parent / "web"


@pytest.fixture(scope="module")
def document(live: Live) -> dict[str, Any]:
    document: dict[str, Any] = live.fetch("/openapi.json").json
    return document


def check(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def test_every_reference_leads_somewhere_and_every_schema_is_one(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named
    assert named <= schemas.keys()
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_status_is_documented(document: dict[str, Any]) -> None:
    paths = document["paths"]
    completions = ["200", "400", "401", "404", "408", "413", "415", "429", "500", "503"]
    assert set(paths["/v1/completions"]["post"]["responses"]) == set(completions)
    assert set(paths["/ready"]["get"]["responses"]) == {"200", "401", "500", "503"}
    assert set(paths["/v1/models/{id}"]["get"]["responses"]) == {"200", "401", "404", "500", "503"}
    assert set(paths["/v1/requests/{id}"]["get"]["responses"]) == {"200", "401", "403", "404", "500"}
    assert set(paths["/v1/recording"]["get"]["responses"]) == {"200", "400", "401", "403", "404", "500", "503"}
    assert set(paths["/v1/live"]["get"]["responses"]) == {"200", "401", "403", "429", "500", "503"}
    for path in paths.values():
        for operation in path.values():
            for response in operation["responses"].values():
                assert response["description"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": "a", "timings": True, "return_token_ids": True, "seed": None, "n": 1, "stop": ["b"]}, 200),
        ({"prompt": [[1, 2], [3]], "stream_options": None, "logprobs": None, "echo": False, "user": "me"}, 200),
        ({"prompt": ["a", 1]}, 400),
        ({"prompt": "a", "n": 2, "best_of": 3, "logprobs": 2, "echo": True, "logit_bias": {"7": -1.5}}, 200),
        ({"prompt": [1, 2], "max_tokens": 0, "logprobs": 0, "stop_token_ids": [3], "min_p": 0.1}, 200),
        ({"prompt": "a", "n": 129}, 400),
        ({"prompt": "a", "top_p": 0}, 400),
        ({"prompt": "a", "logprobs": 21}, 400),
        ({"prompt": "a", "max_tokns": 1}, 400),
        ({"max_tokens": 1}, 400),
    ],
)
def test_the_server_accepts_what_the_schema_accepts_and_answers_as_it_says(
    live: Live, document: dict[str, Any], body: dict[str, Any], status: int
) -> None:
    operation = document["paths"]["/v1/completions"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    if status == 200:
        check(document, schema, body)
    else:
        with pytest.raises(jsonschema.ValidationError):
            check(document, schema, body)
    reply = live.fetch("/v1/completions", "POST", json.dumps(body).encode())
    assert reply.status == status
    check(document, operation["responses"][str(status)]["content"]["application/json"]["schema"], reply.json)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/recite", "/v1/models/other", "/health", "/ready"])
def test_other_answers_are_as_documented(live: Live, document: dict[str, Any], path: str) -> None:
    reply = live.fetch(path)
    responses = document["paths"][re.sub("models/.*", "models/{id}", path)]["get"]["responses"]
    check(document, responses[str(reply.status)]["content"]["application/json"]["schema"], reply.json)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_name_no_other_host(live: Live, path: str) -> None:
    reply = live.fetch(path)
    assert reply.headers["content-type"].startswith("text/html")
    assert not re.findall(rb"(?:https?:)?//[\w.]+\.\w+", reply.body)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "script-src" not in policy, "scripts come from this server's files alone"
    assert b"<script>" not in reply.body
    for asset in re.findall(r'(?:src|href)="(/[^"]+)"', reply.body.decode()):
        assert live.fetch(asset).status == 200


def test_every_field_of_the_page_has_a_label() -> None:
    page = (WEB / "index.html").read_text("utf-8")
    fields = re.findall(r'<(?:input|textarea|select) id="(\w+)"([^>]*)>', page)
    assert len(fields) > 12
    for field, attributes in fields:
        assert re.search(f'<label [^>]*for="{field}"', page) or "aria-label=" in attributes, field


@pytest.mark.skipif(chromium() is None, reason="no chromium on this machine")
def test_the_page_asks_for_a_key_where_one_is_needed() -> None:
    keys, _ = read_keys(None, "a-secret-of-mine")
    with serving(manners=Manners(keys=keys, doors=Doors(open_page=True))) as live:
        asyncio.run(_enter_a_key(live))


async def _enter_a_key(live: Live) -> None:
    binary = chromium()
    assert binary is not None
    async with browsing(binary) as page:
        await page.open(live.url)
        for key, said in (("a-wrong-key", "This server needs"), ("a-secret-of-mine", "not one of")):
            await page.until(f"document.getElementById('key-text').textContent.includes('{said}')")
            await page.until("!document.getElementById('key-card').hidden")
            await page.value(f"document.getElementById('key').value = '{key}'")
            await page.value("document.getElementById('key-form').requestSubmit()")
        await page.until("!document.getElementById('generate').disabled")
        await page.value("document.getElementById('generate').click()")
        await page.until("document.getElementById('finish').textContent === 'max tokens'")
        assert await page.value("document.getElementById('key-card').hidden")
        assert page.problems == []


@pytest.mark.skipif(chromium() is None, reason="no chromium on this machine")
def test_a_person_generates_and_stops_in_a_browser() -> None:
    stage = Stage()
    with serving(stage) as live:
        asyncio.run(_generate_and_stop(live, stage))
        assert stage.aborted.get(timeout=10) >= 1


async def _generate_and_stop(live: Live, stage: Stage) -> None:
    binary = chromium()
    assert binary is not None
    text = "document.querySelector('#output .made').textContent"
    finish = "document.getElementById('finish').textContent"
    async with browsing(binary) as page:
        await page.open(live.url)
        await page.until("!document.getElementById('generate').disabled")
        for field, value in (("prompt", "Tell: "), ("temperature", "0"), ("max_tokens", "200"), ("stop", "END")):
            await page.value(f"document.getElementById('{field}').value = '{value}'")
        await page.value("document.getElementById('generate').click()")
        await page.until(f"{finish} === 'stop'")
        assert await page.value(text) == TEXT.split("END")[0]
        assert int(await page.value("document.getElementById('tokens').textContent")) > 60

        stage.runner.hold()
        stage.runner.let(30)
        await page.value("document.getElementById('generate').click()")
        await page.until(f"document.querySelector('#output .made') && {text}.includes('Once')")
        await page.value("document.getElementById('halt').click()")
        await page.until(f"{finish} === 'you'")
        stage.runner.open()

        await page.value("document.getElementById('max_tokens').value = 'many'")
        await page.value("document.getElementById('generate').click()")
        await page.until("!document.getElementById('error').hidden")
        assert "max_tokens" in await page.value("document.getElementById('error-text').textContent")
        assert await page.value("document.getElementById('max_tokens').getAttribute('aria-invalid')") == "true"

        await page.open(live.url + "/docs")
        await page.until("document.querySelector('.opblock') !== null")
        elsewhere = [url for url in page.requested if not url.startswith((live.url, "data:"))]
        assert (elsewhere, page.problems) == ([], [])
