"""`bench serve` as a command line: options that would do nothing are refused, and sharegpt's bounds have a default."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ridgeline.cli import app
from ridgeline.core.errors import ConfigError
from tests.bench.fake_server import Script, serving, streamed

CLOSED = ["bench", "serve", "--concurrency", "1"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--arrivals", "burst"], "--arrivals: means nothing without --request-rate"),
        (["--rounds", "9"], "--rounds: means nothing without --against"),
        (["--rows"], "--rows: means nothing without --json"),
        (["--workload", "file", "--prompts", "x", "--input-len", "3"], "--input-len: means nothing"),
        (["--workload", "sharegpt", "--prompts", "x", "--prompt-kind", "text"], "--prompt-kind: means nothing"),
        (["--vocab", "9"], "--vocab: means nothing without --prompt-kind ids"),
        (["--prefix-len", "9"], "--prefix-len: means nothing without --workload shared-prefix"),
        (["--prefix-groups", "9"], "--prefix-groups: means nothing without --workload shared-prefix"),
        (["--workload", "sharegpt", "--prompts", "x", "--output-len", "64"], "1:2048"),
        (["--url", "http://["], "is no address"),
        (["--extra-body", "[" * 100_000], "--extra-body: not JSON"),
    ],
)
def test_what_would_do_nothing_or_is_wrong_is_refused(arguments: list[str], named: str) -> None:
    error = CliRunner().invoke(app, CLOSED + arguments).exception
    assert isinstance(error, ConfigError)
    assert named in str(error)


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    error = CliRunner().invoke(app, CLOSED).exception
    assert isinstance(error, ConfigError)
    assert "OPENAI_API_KEY" in str(error)
    assert key not in str(error)


def test_the_lengths_of_a_files_answers_count_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " a-key\n")
    talks, script = tmp_path / "talks.json", Script(lambda _n, body: streamed(1, len(body["prompt"].split())))
    talks.write_text('[{"conversations": [{"value": "Hello?"}, {"value": "one two three"}]}]')
    with serving(script) as url:
        load = ["--url", url, "--workload", "sharegpt", "--prompts", str(talks), "--num-requests", "2"]
        assert CliRunner().invoke(app, [*CLOSED, *load]).exit_code == 0
    assert {body["max_tokens"] for body in script.bodies[1:]} == {3}
    assert {headers["authorization"] for headers in script.headers} == {"Bearer a-key"}
