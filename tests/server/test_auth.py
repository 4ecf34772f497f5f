"""API keys: where they come from, who gets in, and that no secret comes out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.server.auth import Keys, read_keys
from ridgeline.server.gate import Doors
from ridgeline.server.limits import Limits
from ridgeline.server.manners import Manners
from tests.server.live import Live, Stage, serving

SECRET, OTHER = "a-secret-of-mine", "another-secret"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_has_names_comments_and_blank_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "keys", f"# ours\n\nalice: {SECRET}\n  {OTHER}  \n")
    keys, warning = read_keys(file, "env-secret-1, bob:env-secret-2,")
    assert warning is None
    assert keys.name_of(f"Bearer {SECRET}") == "alice"
    assert keys.name_of(f"bearer   {OTHER}") == "key-4"
    assert keys.name_of("Bearer env-secret-1") == "env-1"
    assert keys.name_of("Bearer env-secret-2") == "bob"
    for wrong in ("", SECRET, f"Basic {SECRET}", f"Bearer {SECRET}x", "Bearer", "Bearer # ours", "Bearer alice"):
        assert keys.name_of(wrong) is None


def test_a_file_that_all_can_read_is_told(tmp_path: Path) -> None:
    _, warning = read_keys(write(tmp_path / "keys", SECRET, 0o644), None)
    assert warning is not None
    assert "chmod 600" in warning


@pytest.mark.parametrize("text", ["", "# only\n", "short\n", "two words here\n", "naïve-secret-key\n", "name:\n"])
def test_a_file_without_a_good_key_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_keys(write(tmp_path / "keys", text), None)
    assert not text.strip("#\n") or text.strip() not in str(caught.value)


def test_other_mistakes_of_the_operator(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_keys(tmp_path / "none", None)
    with pytest.raises(ConfigError, match="same name"):
        read_keys(None, f"a:{SECRET},a:{OTHER}")
    with pytest.raises(ConfigError, match="--api-key-file"):
        Manners.of(Config.of(max_concurrent_per_key=2), Keys(), Keys())


def test_nothing_prints_a_secret_or_its_digest() -> None:
    keys, _ = read_keys(None, f"alice:{SECRET}")
    assert SECRET not in repr(keys._keys)
    assert "digest" not in repr(keys._keys)


@pytest.fixture(scope="module")
def locked() -> Iterator[Live]:
    keys, _ = read_keys(None, f"alice:{SECRET},bob:{OTHER}")
    with serving(manners=Manners(limits=Limits(concurrent_per_key=3), keys=keys)) as live:
        yield live


@pytest.mark.parametrize("path", ["/", "/v1/models", "/ready", "/metrics", "/openapi.json", "/docs", "/nothing"])
def test_every_route_but_health_needs_a_key(locked: Live, path: str) -> None:
    for reply in (locked.fetch(path), locked.fetch(path, authorization="Bearer nonsense")):
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.json["error"]["code"] == "invalid_api_key"
        assert reply.headers["x-request-id"]
    reply = locked.fetch(path, authorization=f"Bearer {SECRET}")
    assert reply.status == (404 if path == "/nothing" else 200)


def test_health_is_open_and_the_usual_client_gets_in_with_its_key(locked: Live) -> None:
    assert locked.fetch("/health").status == 200
    client = OpenAI(base_url=locked.url + "/v1", api_key=SECRET, max_retries=0)
    assert client.completions.create(model="recite", prompt="x", max_tokens=2).choices
    with pytest.raises(openai.AuthenticationError):
        locked.openai.completions.create(model="recite", prompt="x")


def test_pages_and_metrics_are_open_only_where_that_was_asked_for() -> None:
    keys, _ = read_keys(None, SECRET)
    with serving(manners=Manners(keys=keys, doors=Doors(open_metrics=True, open_page=True))) as live:
        for path in ("/", "/favicon.svg", "/docs", "/docs/assets/swagger-ui.css", "/openapi.json", "/metrics"):
            assert live.fetch(path).status == 200, path
        for path in ("/v1/models", "/ready", "/metrics/", "/docs/assets/../../v1/models"):
            assert live.fetch(path).status in (401, 404), path
        assert live.fetch("/v1/models").status == 401


def test_a_key_has_a_bound_of_its_own() -> None:
    keys, _ = read_keys(None, f"alice:{SECRET},bob:{OTHER}")
    body = json.dumps({"prompt": ["a", "b"], "max_tokens": 2}).encode()
    stage = Stage()
    with serving(stage, manners=Manners(limits=Limits(concurrent_per_key=3), keys=keys)) as live:
        stage.runner.hold()
        client = OpenAI(base_url=live.url + "/v1", api_key=SECRET, max_retries=0)
        stage.runner.let(1)
        stream = client.completions.create(model="recite", prompt=["a", "b"], max_tokens=50, stream=True)
        next(iter(stream))
        reply = live.fetch("/v1/completions", "POST", body, authorization=f"Bearer {SECRET}")
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert "this API key has 2 requests under way" in reply.json["error"]["message"]
        stage.runner.open()
        assert live.fetch("/v1/completions", "POST", body, authorization=f"Bearer {OTHER}").status == 200
        list(stream)
        assert live.fetch("/v1/completions", "POST", body, authorization=f"Bearer {SECRET}").status == 200


@pytest.mark.parametrize("listed", ["", ",", " , "])
def test_a_variable_without_a_key_in_it_does_not_open_the_server(listed: str) -> None:
    with pytest.raises(ConfigError, match="RIDGELINE_API_KEYS"):
        read_keys(None, listed)
