"""`ridgeline bench step`: whole steps timed at a chosen batch and context, in the lines that peers' benches print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch

from ridgeline.cli.stepping import joined
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.device.base import HostTimer, Timer
from ridgeline.device.cpu import CpuDevice
from ridgeline.lab import runfiles
from ridgeline.lab.compare.runs import compare
from ridgeline.lab.stepping import HELD, StepOrder, Timing, check_free, check_visits, decode, each_timing, prefill
from tests.conftest import Command
from tests.lab.test_rig import open_bench
from tests.tiny_gpt2 import write_tiny_gpt2

DECODE = {"model", "what", "batch", "context", "threads", "tokens_per_s"}
PREFILL = {"model", "what", "tokens", "threads", "tokens_per_s"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ridgeline", "bench", "step", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=os.environ, check=False)


def test_a_decode_step_is_timed_at_the_batch_and_context(tmp_path: Path) -> None:
    bench, told = open_bench(write_tiny_gpt2(tmp_path / "tiny")), list[str]()
    found = decode(bench, 3, 20, 6, 2, told.append)
    assert (found.batch, found.context, found.tokens, found.device_ns) == (3, 20, 3, ())
    assert [len(steps) for steps in found.host_ns] == [6, 6]
    assert min(map(min, found.host_ns)) > 0
    assert told == ["decode, batch 3, context 20"] * 2
    assert found.line("tiny", 2)["tokens_per_s"] == pytest.approx(3e9 / found.step_ns, abs=0.06)


def test_the_first_timed_step_comes_after_the_context(tmp_path: Path) -> None:
    bench = open_bench(write_tiny_gpt2(tmp_path / "tiny"))
    rig = bench.rig(2, 20 + 7 // 2, 7)
    with rig.decoding():
        assert rig.last.positions == 2 * 20


def test_a_launch_of_several_tokens_counts_for_each(tmp_path: Path) -> None:
    bench = open_bench(write_tiny_gpt2(tmp_path / "tiny"), max_steps_per_visit=4)
    found = decode(bench, 2, 20, 9, 1, lambda _: None)
    assert 2 <= len(found.host_ns[0]) < 9


@pytest.mark.parametrize("options", [{"launches_in_flight": 2}, {"packing": "padded"}, {"kv_cache": "none"}], ids=str)
def test_options_of_the_engine_pass_through(options: dict[str, object], tmp_path: Path) -> None:
    bench = open_bench(write_tiny_gpt2(tmp_path / "tiny"), **options)
    assert len(decode(bench, 2, 20, 5, 1, lambda _: None).host_ns[0]) == 5
    assert prefill(bench, 20, 2, 1, lambda _: None).tokens == 40


def test_every_cell_is_measured_once(tmp_path: Path) -> None:
    bench, seen = open_bench(write_tiny_gpt2(tmp_path / "tiny")), list[tuple[int, int]]()
    order = StepOrder((1, 2), (8, 16), steps=3, rounds=2, prefill_tokens=12)
    found = list(each_timing(bench, order, lambda _what, done, whole: seen.append((done, whole))))
    assert [t.name for t in found] == [
        "decode, batch 1, context 8", "decode, batch 2, context 8", "decode, batch 1, context 16",
        "decode, batch 2, context 16", "prefill, 12 tokens",
    ]  # fmt: skip
    assert seen == [(i, 10) for i in range(10)]


def test_samples_are_medians_of_rounds() -> None:
    found = Timing("decode", 2, 8, 2, ((1e9, 9e9, 2e9), (4e9, 4e9, 4e9)), ((1e9,), (3e9,)))
    assert found.samples() == {
        "tokens_per_s": [1.0, 0.5], "step_host_ns": [2e9, 4e9], "step_device_ns": [1e9, 3e9],
    }  # fmt: skip
    assert found.step_ns == 3e9


def test_a_sequence_that_the_model_has_no_room_for_is_refused(tmp_path: Path) -> None:
    spec = open_bench(write_tiny_gpt2(tmp_path / "tiny")).spec
    StepOrder(contexts=(spec.max_positions - 9,), steps=8, prefill_tokens=8).check(spec)
    with pytest.raises(ConfigError, match=f"--context {spec.max_positions - 8}: with 8 steps"):
        StepOrder(contexts=(spec.max_positions - 8,), steps=8).check(spec)
    with pytest.raises(ConfigError, match="--prefill 4096"):
        StepOrder(contexts=(8,), steps=8, prefill_tokens=4096).check(spec)


def test_steps_that_are_nearly_all_under_way_before_the_clock_starts_are_refused() -> None:
    config = Config.of(max_steps_per_visit=8, launches_in_flight=2)
    with pytest.raises(ConfigError, match=r"--steps 48: 16 of them are under way at once.*take at least 64"):
        check_visits(StepOrder(), config)
    check_visits(StepOrder(steps=64), config)
    check_visits(StepOrder(steps=1), Config())


def test_what_a_rig_sets_itself_is_refused_and_the_rest_is_not() -> None:
    for name, value in {"batching": "static", "prefix_cache": False, "max_num_seqs": 8, "max_model_len": 99}.items():
        assert any(name in names for names in HELD.values())
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}: means nothing"):
            check_free(Config.of(**{name: value}))
    check_free(Config.of(dtype="float32", packing="padded", block_size=32, kv_memory="1GiB", launches_in_flight=2))


def test_numbers_with_spaces_or_commas() -> None:
    assert joined(["--batch", "1", "8", "32", "--steps", "4"]) == ["--batch", "1,8,32", "--steps", "4"]
    assert joined(["--context", "256", "768", "--batch", "1,8"]) == ["--context", "256,768", "--batch", "1,8"]
    assert joined(["--steps", "4", "5"]) == ["--steps", "4", "5"], "left for the parser to refuse"


def test_the_command_prints_the_peers_fields_and_keeps_what_compare_reads(tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    asked = ("--batch", "1", "2", "--context", "16", "--steps", "4", "--prefill", "16", "--json", str(path))
    done = run("--model", "demo", "--device", "cpu", "--dtype", "float32", "--threads", "1", *asked)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [set(line) for line in lines] == [DECODE, DECODE, PREFILL]
    assert [line.get("batch") for line in lines] == [1, 2, None]
    assert all(line["threads"] == 1 and line["tokens_per_s"] > 0 and line["model"] == "demo" for line in lines)
    kept = runfiles.read(path)
    assert (kept.kind, kept.model, kept.config["threads"]) == ("bench step", "demo", 1)
    rates = kept.samples["decode, batch 2, context 16"]["tokens_per_s"]
    assert len(rates) == 5
    assert lines[1]["tokens_per_s"] == pytest.approx(median(rates), rel=0.01)
    assert compare(kept, kept, anyway=False).rows
    (section,) = json.loads(path.read_text())["report"]["sections"]
    assert [bar["name"] for bar in section["figure"]["bars"]] == list(kept.samples)
    assert [bar["value"] for bar in section["figure"]["bars"]] == pytest.approx(
        [median(found["tokens_per_s"]) for found in kept.samples.values()], rel=0.01
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--batching", "static"), "--batching: means nothing for steps of a batch and a context that are given"),
        (("--batch", "0"), "--batch 0: write whole numbers"),
        (("--steps", "0"), "--steps: 0 is too small"),
        (("--context", "2000"), "1024 positions"),
        (("--json", "no/such/folder/x.json"), "there is no folder"),
        (("--threads", "0"), "--threads: 0 is out of range"),
    ],
)
def test_mistakes_get_one_sentence(arguments: tuple[str, ...], sentence: str, command: Command) -> None:
    done = command("bench", "step", "--model", "demo", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


class OwnClock(CpuDevice):
    """A device whose clock is not the host's: every step takes as long."""

    def timer(self) -> Timer:
        return FixedTimer()


class FixedTimer:
    elapsed_ns = 500

    def __enter__(self) -> Timer:
        return self

    def __exit__(self, *error: object) -> None:
        """It does not look at the time."""


def test_a_device_with_its_own_clock_times_as_many_steps_again(tmp_path: Path) -> None:
    bench = open_bench(write_tiny_gpt2(tmp_path / "tiny"))
    assert isinstance(bench.loaded.device.timer(), HostTimer)
    other = replace(bench, loaded=replace(bench.loaded, device=OwnClock(torch.float32)))
    found = decode(other, 2, 20, 4, 3, lambda _: None)
    assert found.device_ns == ((500.0,) * 4,) * 3
    assert [len(steps) for steps in found.host_ns] == [4, 4, 4]
    assert found.samples()["step_device_ns"] == [500.0] * 3
    assert prefill(other, 20, 2, 1, lambda _: None).device_ns == ((500.0,) * 5,)
