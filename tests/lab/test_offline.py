"""`ridgeline bench offline`: the same requests for the same seed, tokens counted, and the share of what steps allow."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ridgeline.bench.lengths import Lengths
from ridgeline.core.errors import ConfigError
from ridgeline.lab import runfiles
from ridgeline.lab.offline import Allowed, Load, OfflineOrder, allowed, described, document, each_load
from ridgeline.lab.stepping import Timing
from tests.conftest import Command
from tests.lab.test_rig import open_bench
from tests.tiny_gpt2 import write_tiny_gpt2

SMALL = OfflineOrder(requests=5, prompt=Lengths(4, 12), new=Lengths(2, 6), seed=3, rounds=2)
LOAD = Load(seconds=2.0, tokens_in=100, tokens_out=40, requests=8, steps=10, batch=4.0, context=20.0)
STEP = Timing("decode", 4, 8, 4, ((0.1e9,),))
PROMPTS = Timing("prefill", 2, 10, 20, ((0.04e9,),))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ridgeline", "bench", "offline", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=os.environ, check=False)


def test_equal_seeds_give_equal_requests_and_no_round_repeats_another() -> None:
    first, second = itertools.islice(SMALL.loads(50), 2)
    assert [first, second] == list(itertools.islice(SMALL.loads(50), 2))
    assert first != second
    assert first != next(replace(SMALL, seed=4).loads(50))
    assert all(4 <= len(shape.prompt) <= 12 and 2 <= shape.max_tokens <= 6 for shape in first + second)


def test_what_a_load_did_is_counted(tmp_path: Path) -> None:
    bench = open_bench(write_tiny_gpt2(tmp_path / "tiny"))
    found = list(each_load(bench, SMALL, lambda *_: None))
    _, *loads = itertools.islice(SMALL.loads(bench.spec.vocab), 3)
    assert len(found) == 2
    for load, shapes in zip(found, loads, strict=True):
        sizes = [(len(shape.prompt), shape.max_tokens) for shape in shapes]
        assert load.tokens_in == sum(at for at, _ in sizes)
        assert load.tokens_out == sum(out for _, out in sizes)
        assert load.requests == 5
        assert load.steps == max(out for _, out in sizes), "all are there at once, and prompts fit into one step"
        assert load.batch == pytest.approx(load.tokens_out / load.steps)
        looked = [at + k for at, out in sizes for k in range(1, out)]
        assert load.context == pytest.approx(sum(looked) / len(looked))


def test_a_stop_token_ends_an_answer(tmp_path: Path) -> None:
    bench = open_bench(write_tiny_gpt2(tmp_path / "tiny"))
    everything = tuple(range(64))
    (load,) = each_load(bench, replace(SMALL, rounds=1, stop_ids=everything), lambda *_: None)
    (full,) = each_load(bench, replace(SMALL, rounds=1), lambda *_: None)
    assert load.tokens_out < full.tokens_out


def test_the_share_is_what_the_help_says() -> None:
    # (40 - 8) / 4 decode steps of 0.1 s, and 100 prompt tokens of 2 ms
    assert Allowed(STEP, PROMPTS).seconds(LOAD) == pytest.approx(0.8 + 0.2)
    assert Allowed(STEP, PROMPTS).share(LOAD) == pytest.approx(0.5)
    assert LOAD.rates == {"in_tokens_per_s": 50.0, "out_tokens_per_s": 20.0, "total_tokens_per_s": 70.0}
    told = "\n".join(described([LOAD], Allowed(STEP, PROMPTS)))
    assert "50.0 in, 20.0 out, 70.0 total" in told
    assert "50.0 % of what this engine's steps allow" in told
    assert document([LOAD], Allowed(STEP, PROMPTS))[1]["offline"]["share_of_steps"] == pytest.approx([0.5])


def test_steps_are_timed_where_the_load_was(tmp_path: Path) -> None:
    bench = open_bench(write_tiny_gpt2(tmp_path / "tiny"))
    loads = list(each_load(bench, SMALL, lambda *_: None))
    found = allowed(bench, loads, lambda *_: None)
    assert found.step is not None
    assert found.step.batch == round(sum(load.batch for load in loads) / 2)
    middle = sum(load.context for load in loads) / 2
    assert abs(found.step.context + len(found.step.host_ns[0]) / 2 - middle) <= 1.5
    assert found.prompts.batch == 5, "as many as there are, where a step has room for more"
    short = list(each_load(bench, replace(SMALL, new=Lengths(1, 1)), lambda *_: None))
    assert allowed(bench, short, lambda *_: None).step is None


def test_requests_that_can_never_run_are_refused(tmp_path: Path) -> None:
    bench = open_bench(write_tiny_gpt2(tmp_path / "tiny"))
    with pytest.raises(ConfigError, match="together up to 5006 tokens"):
        next(each_load(bench, replace(SMALL, prompt=Lengths(4, 5000)), lambda *_: None))


def test_the_command_prints_rates_and_keeps_what_compare_reads(tmp_path: Path) -> None:
    path = tmp_path / "offline.json"
    asked = ("--requests", "4", "--prompt-len", "4:8", "--output-len", "4", "--rounds", "2", "--floor")
    done = run("--model", "demo", "--device", "cpu", "--dtype", "float32", *asked, "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "2 x 4 requests" in done.stdout
    assert "% of what this engine's steps allow" in done.stdout
    kept = runfiles.read(path)
    assert (kept.kind, kept.model) == ("bench offline", "demo")
    assert {len(values) for values in kept.samples["offline"].values()} == {2}
    (section,) = json.loads(path.read_text())["report"]["sections"]
    assert section["readings"] == done.stdout.splitlines()[-3:], "the page says what the terminal says"
    assert [bar["group"] for bar in section["figure"]["bars"]] == ["in", "out", "in", "out"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--model", "demo", "--requests", "0"), "--requests: 0 is too small"),
        (("--model", "demo", "--prompt-len", "9:3"), "--prompt-len"),
        (("--model", "demo", "--prompt-len", "900", "--output-len", "900"), "together up to 1800 tokens"),
        (("--random-weights", "gpt2", "--no-ignore-eos"), "random weights end nothing"),
    ],
)
def test_mistakes_get_one_sentence(arguments: tuple[str, ...], sentence: str, command: Command) -> None:
    done = command("bench", "offline", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
