"""The command line as a user meets it: help that teaches, one-sentence errors, a file that the flags overrule."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from ridgeline.core.config import Config, parse_bytes
from ridgeline.core.errors import ConfigError
from ridgeline.core.options import SECTIONS

ROOT = Path(__file__).parent.parent


def run(*arguments: str, program: tuple[str, ...] = ("-m", "ridgeline")) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)


@pytest.mark.parametrize("program", [("-m", "ridgeline", "serve"), ("server.py",)])
def test_help_explains_every_option(program: tuple[str, ...]) -> None:
    done = run("--help", program=program)
    assert done.returncode == 0
    words = " ".join(done.stdout.replace("│", " ").split())
    for section in SECTIONS.values():
        for f in fields(section):
            assert "--" + f.name.replace("_", "-") in words
            assert " ".join(f.metadata["help"].split())[:20] in words
    assert "--config" in words


def test_the_classic_server_shows_its_own_defaults() -> None:
    words = " ".join(run("--help", program=("server.py",)).stdout.replace("│", " ").split())
    assert "Default: dynamic." in words
    assert "Default: padded." in words


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("serve", "--batching", "dynamik"),
            "--batching: 'dynamik' is not one of one, static, dynamic, prefill-first, continuous, gathered",
        ),
        (("serve", "--batching", "one", "--chunked-prefill"), "--batching one computes prompts whole"),
        (("serve", "--kv-cache", "none", "--prefix-cache"), "--prefix-cache needs a KV cache"),
        (("generate", "--prefix-cache", "--no-prefix-cache", "Hello"), "exclude each other"),
        (("serve", "--port", "70000"), "--port: 70000 is out of range"),
        (("serve", "--model", "demo", "--random-weights", "gpt2"), "exclude each other"),
        (("serve", "--kv-memory", "much", "--model", "demo"), "'much' is not a size"),
        (("serve", "--config", "nowhere.toml"), "nowhere.toml"),
        (("bench", "serve", "--num-requests", "4"), "--concurrency"),
        (("bench", "serve", "--concurrency", "1", "--extra-body", "[1]"), "--extra-body: expected a JSON object"),
        (("bench", "serve", "--concurrency", "1", "--api-key-file", "nowhere"), "--api-key-file nowhere"),
        (("calibrate", "--device", "tpu"), "--device: 'tpu' is not one of auto, cpu, cuda"),
        (("tradeoffs", "--dtype", "float23", "--quick"), "--dtype: 'float23' is not one of"),
        (("generate", "--model", "./nowhere", "Hello"), "./nowhere"),
        (("generate", "--model", "demo", "--max-tokens", "0", "Hello"), "max_tokens: 0 is too small"),
        (("generate", "--model", "demo", "--temperature", "nan", "Hello"), "temperature"),
        (("generate", "--model", "demo", "--max-model-len", "4096", "Hello"), "1024 positions"),
        (("generate", "--model", "demo", "--kv-memory", "64KiB", "Hello"), "the KV cache is too small"),
    ],
)
def test_mistakes_get_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    done = run(*arguments)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert sentence in done.stderr
    assert done.stdout == ""


def test_a_file_sets_options_and_flags_overrule_it(tmp_path: Path) -> None:
    path = tmp_path / "ridgeline.toml"
    path.write_text('model = "demo"\nmax-num-seqs = 2\nmax_model_len = 64\n')
    done = run("generate", "--config", str(path), "--max-tokens", "4", "--temperature", "0", "The old man")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The old man")
    path.write_text('modell = "demo"\n')
    assert "--modell: unknown option; did you mean 'model'?" in run("generate", "--config", str(path), "x").stderr


def test_version_names_what_matters_in_a_bug_report() -> None:
    done = run("version")
    assert done.returncode == 0
    for word in ("ridgeline", "python", "torch", "tokenizers"):
        assert word in done.stdout


def test_sizes() -> None:
    assert parse_bytes("4GiB") == 4 * 2**30
    assert parse_bytes("1.5 MB") == 1_500_000
    assert parse_bytes("77") == 77
    for wrong in ("", "-1", "4 XB", "GiB"):
        with pytest.raises(ConfigError):
            parse_bytes(wrong)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"max_num_seq": 3}, "did you mean 'max_num_seqs'"),
        ({"port": "8000"}, "expected int"),
        ({"port": True}, "expected int"),
        ({"batch_window_ms": float("nan")}, "out of range"),
        ({"batching": "dynamic", "max_batch_size": 8, "max_num_seqs": 4}, "can never be reached"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(values: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Config.of(**values)
