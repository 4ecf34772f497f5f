"""What a request may say, and what is answered when it is wrong: OpenAI's error object, naming the parameter."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.server.live import MAX_LEN, Live, Reply, Stage, serving


def post(live: Live, body: bytes | dict[str, Any], kind: str = "application/json") -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return live.fetch("/v1/completions", "POST", content, kind)


def error_of(response: Reply, status: int) -> dict[str, Any]:
    assert response.status == status, response.body
    assert response.headers["content-type"] == "application/json"
    body = response.json
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("max_tokens", -1, "max_tokens"),
        ("max_tokens", "5", "max_tokens"),
        ("max_tokens", True, "max_tokens"),
        ("max_tokens", 5.0, "max_tokens"),
        ("max_tokens", 10**30, "max_tokens"),
        ("max_tokens", MAX_LEN, "max_tokens"),
        ("min_tokens", 17, "min_tokens"),
        ("temperature", 2.5, "temperature"),
        ("temperature", "hot", "temperature"),
        ("temperature", 10**400, "temperature"),
        ("top_p", 0, "top_p"),
        ("top_k", -2, "top_k"),
        ("seed", -1, "seed"),
        ("seed", 2**64, "seed"),
        ("stop", [""], "stop"),
        ("stop", ["x"] * 17, "stop"),
        ("stop", [1], "stop"),
        ("stream", 1, "stream"),
        ("stream_options", {"include_usage": True}, "stream_options"),
        ("n", 129, "n"),
        ("best_of", 0, "best_of"),
        ("echo", 0, "echo"),
        ("logprobs", 21, "logprobs"),
        ("suffix", "the end", "suffix"),
        ("priority", 1, "priority"),
        ("presence_penalty", 2.5, "presence_penalty"),
        ("logit_bias", {"50256": -100}, "logit_bias"),
        ("prompt", "", "prompt"),
        ("prompt", [], "prompt"),
        ("prompt", [[]], "prompt"),
        ("prompt", ["a", 1], "prompt"),
        ("prompt", [True], "prompt"),
        ("prompt", [1.0], "prompt"),
        ("prompt", [[1], [2.5]], "prompt[1]"),
        ("prompt", [257], "prompt"),
        ("prompt", [-1], "prompt"),
        ("prompt", {"text": "a"}, "prompt"),
        ("prompt", ["a"] * 65, "prompt"),
        ("prompt", "a" * MAX_LEN, "prompt"),
        ("prompt", "a" * 20_000, "prompt"),
        ("prompt", "a" * 10**6, "prompt"),
        ("prompt", ["a", "a" * MAX_LEN], "prompt"),
        ("max_tokns", 5, "max_tokns"),
    ],
)
def test_a_wrong_value_is_a_400_that_names_its_field(live: Live, field: str, value: object, param: str) -> None:
    error = error_of(post(live, {"prompt": "a", field: value}), 400)
    assert error["param"] == param
    assert error["message"].startswith(param.split("[")[0])
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 250


def test_the_client_sees_an_exception_with_the_parameter(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="recite", prompt="a", suffix="b")
    assert caught.value.param == "suffix"
    with pytest.raises(openai.NotFoundError) as not_found:
        client.completions.create(model="gpt-9", prompt="a")
    assert (not_found.value.param, not_found.value.code) == ("model", "model_not_found")


def test_an_unknown_field_is_answered_with_the_nearest_known_one(live: Live) -> None:
    assert "did you mean 'max_tokens'?" in error_of(post(live, {"prompt": "a", "max_token": 5}), 400)["message"]
    unknown = {"prompt": "a", "stream": True, "stream_options": {"include_usages": True}}
    error = error_of(post(live, unknown), 400)
    assert error["param"] == "stream_options.include_usages"
    assert "did you mean 'include_usage'?" in error["message"]


def test_a_prompt_that_is_too_long_is_told_the_numbers(live: Live) -> None:
    error = error_of(post(live, {"prompt": "a" * 200, "max_tokens": 100}), 400)
    assert error["code"] == "context_length_exceeded"
    assert all(number in error["message"] for number in ("200", "100", "256", "56"))


def test_fields_that_ask_for_nothing_are_accepted(live: Live) -> None:
    nothing: dict[str, object] = {
        "n": 1, "best_of": 1, "echo": False, "logprobs": None, "suffix": None, "presence_penalty": 0,
        "frequency_penalty": 0.0, "logit_bias": {}, "top_k": -1, "stream_options": None, "stop": [], "seed": None,
        "temperature": None, "model": None,
    }  # fmt: skip
    response = post(live, {"prompt": "a"} | nothing)
    assert response.status == 200, response.body
    assert "x-ridgeline-ignored" not in response.headers


def test_fields_without_effect_are_named_in_a_header(client: OpenAI) -> None:
    ask = {"model": "recite", "prompt": "a", "user": "me", "extra_body": {"store": False, "metadata": None}}
    response = client.completions.with_raw_response.create(**ask)  # type: ignore[call-overload]
    assert response.headers["x-ridgeline-ignored"] == "user, store"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"a"',
        b"null",
        b'{"prompt": "a"} x',
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a", "max_tokens": ' + b"9" * 5000 + b"}",
        b'{"prompt": "\xff"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\\udc00 and more text"}',
        b'{"prompt": "\\ud800 and more text"}',
        b'{"prompt": ' + b"[" * 100_000,
        b"[" * 100_000,
        '{"prompt": "a"}'.encode("utf-16"),
    ],
)  # fmt: skip
def test_a_body_that_is_not_a_json_object_is_a_400(live: Live, body: bytes) -> None:
    error_of(post(live, body), 400)


def test_a_body_must_be_declared_as_json_and_not_be_too_long(live: Live) -> None:
    assert "application/json" in error_of(post(live, {"prompt": "a"}, "text/plain"), 415)["message"]
    assert post(live, {"prompt": "a"}, "application/json; charset=utf-8").status == 200
    long = b'{"prompt": "' + b"a" * (5 * 2**20) + b'"}'
    assert "4194304" in error_of(post(live, long), 413)["message"]


def test_unknown_routes_and_methods_get_the_error_object(live: Live) -> None:
    error = error_of(live.fetch("/v1/completion", "POST"), 404)
    assert "did you mean '/v1/completions'?" in error["message"]
    error_of(live.fetch("/v1/completions/"), 404)
    response = live.fetch("/v1/completions")
    assert "use POST" in error_of(response, 405)["message"]
    assert response.headers["allow"] == "POST"
    error_of(live.fetch("/health", "DELETE"), 405)


def test_models(client: OpenAI, live: Live) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.owned_by, model.created) == ("recite", "ridgeline", 1700000000)
    assert model.model_extra is not None
    assert (model.model_extra["root"], model.model_extra["max_model_len"]) == ("acme/recite-1b", MAX_LEN)
    assert model.model_extra["ridgeline"] == {
        "dtype": "none", "device": "cpu", "batching": "continuous", "note": None
    }  # fmt: skip
    assert client.models.retrieve("recite") == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("acme/other")


def test_a_defect_is_a_500_without_internals_and_the_server_goes_on() -> None:
    stage = Stage()
    del stage.tokenizer._library
    with serving(stage) as live:
        error = error_of(post(live, {"prompt": "a"}), 500)
        assert (error["type"], error["code"]) == ("server_error", "internal_error")
        assert "_library" not in error["message"]
        assert post(live, {"prompt": [1]}).status == 200


def test_a_text_that_can_never_fit_is_not_encoded_to_count_it() -> None:
    with serving() as live:
        reply = live.fetch("/tokenize", "POST", json.dumps({"prompt": "x" * (MAX_LEN * 256 + 1)}).encode())
        assert error_of(reply, 400)["code"] == "context_length_exceeded"
        reply = live.fetch("/tokenize", "POST", json.dumps({"prompt": "x" * 20_000}).encode())
        assert (reply.status, reply.json["count"]) == (200, 20_000)
