"""The ladder from an order to its files: measured on a tiny model, gone on with, and refused where it cannot be."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ridgeline.build import EngineOrder, Loaded
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.report import reported
from ridgeline.device.energy import Unmetered
from ridgeline.hub import Access, choose
from ridgeline.lab.counters import perf
from ridgeline.lab.counters.attached import Counters
from ridgeline.lab.ladder import page
from ridgeline.lab.ladder.climb import Asked, run
from ridgeline.lab.ladder.file import NAME, read
from ridgeline.lab.ladder.quality import gap
from ridgeline.lab.ladder.rungs import KV_CACHE, PEER, SIXTEEN_BITS
from ridgeline.lab.ladder.seams import Seams
from ridgeline.lab.report import page as saved
from tests.conftest import Command
from tests.lab.ladders import document
from tests.lab.test_attached import Steady
from tests.tiny_gpt2 import write_tiny_gpt2

RUNGS = (KV_CACHE, "static", "continuous", SIXTEEN_BITS)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a lossy rung costs, made up."""

    perplexity: float = 12.0
    reference_perplexity: float = 10.0
    agreement: float = 0.9
    positions: int = 50


class Babbles:
    """A peer that makes other tokens."""

    def __init__(self, _order: EngineOrder, _loaded: Loaded) -> None: ...

    def run(self, prompts: Sequence[Sequence[int]], new: Sequence[int]) -> list[list[int]]:
        return [[0] * count for _, count in zip(prompts, new, strict=True)]


def uncounted(_device: Any) -> Counters:
    return Counters(perf.offer({"PATH": ""}), Unmetered("no energy is counted here"))


def seams(**changes: Any) -> Seams:
    made = Seams(
        peer_missing=lambda: "transformers is not installed",
        peer=Babbles,
        judge=lambda *_: Judged(),
        text_ids=lambda _order, limit: list(range(limit)),
        gap=gap,
        counters=uncounted,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> EngineOrder:
    folder = write_tiny_gpt2(tmp_path_factory.mktemp("model") / "tiny")
    config = Config.of(model=str(folder), device="cpu")
    found = choose(config.model, Access())
    return EngineOrder(config, found.name, found.weights)


def climb(order: EngineOrder, output: Path, *rungs: str, given: Seams | None = None, **asked: Any) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=150)
    code = run(
        order, Asked(5, rungs, quick=True, **asked), output, ["ridgeline", "ladder"], lambda *_: None, console,
        given or seams(),
    )  # fmt: skip
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


def test_a_ladder_is_measured_compared_and_written(order: EngineOrder, tmp_path: Path) -> None:
    code, said = climb(order, tmp_path, *RUNGS)
    assert code == 0, said
    found = read(tmp_path / NAME)
    assert found["finished"]
    results = found["results"]
    skipped = {rung["name"]: rung["skipped"] for rung in results["rungs"] if rung["skipped"] is not None}
    climbed = [name for name in RUNGS if name not in skipped]
    assert set(skipped) <= {SIXTEEN_BITS}  # where the processor computes no bfloat16
    assert len(results["rounds"]) == 5
    for turn in results["rounds"]:
        assert set(turn["measures"]) == set(climbed) == set(turn["order"])
        assert all(check["wrong"] == 0 for check in turn["checks"].values())
        assert turn["checks"]["continuous"]["compared"] > 0
    assert len({tuple(turn["order"]) for turn in results["rounds"]}) > 1  # the order is drawn for each round
    if SIXTEEN_BITS not in skipped:
        assert results["quality"][SIXTEEN_BITS]["perplexity"] == 12.0
    assert results["uncounted"]["joules"] == "no energy is counted here"
    assert "Continuous batching" in said
    written = (tmp_path / "ladder.md").read_text()
    for words in ("| Rung |", "Static padded batch", "no energy is counted here", "interval of the sign test"):
        assert words in written
    assert "<html" in (tmp_path / "index.html").read_text()


def test_a_finished_ladder_is_shown_again_and_an_interrupted_one_gone_on_with(
    order: EngineOrder, tmp_path: Path
) -> None:
    class Impatient(Exception):
        """Stands for what ends a process: Ctrl-C is caught by `run`, anything else is not."""

    turns: list[str] = []

    def progress(what: str, _done: int, _whole: int) -> None:
        turns.append(what)
        if what.startswith("round 3"):
            raise KeyboardInterrupt

    console = Console(file=io.StringIO(), width=150)
    asked = Asked(5, (KV_CACHE, "static"), quick=True)
    assert run(order, asked, tmp_path, ["x"], progress, console, seams()) == 130
    begun = read(tmp_path / NAME)
    assert not begun["finished"]
    assert len(begun["results"]["rounds"]) == 2
    code, _ = climb(order, tmp_path, KV_CACHE, "static")
    assert code == 0
    whole = read(tmp_path / NAME)
    assert whole["finished"]
    assert whole["results"]["rounds"][:2] == begun["results"]["rounds"]
    serials = [turn["serial"] for turn in whole["results"]["rounds"] + whole["results"]["voided"]]
    assert len(set(serials)) == len(serials)

    def never(_what: str, _done: int, _whole: int) -> None:
        raise Impatient

    assert run(order, asked, tmp_path, ["x"], never, console, seams()) == 0
    with pytest.raises(ConfigError, match="measured with another --rungs"):
        climb(order, tmp_path, KV_CACHE, "continuous")


def test_a_time_box_that_is_over_leaves_out_what_can_be(order: EngineOrder, tmp_path: Path) -> None:
    code, said = climb(order, tmp_path, *RUNGS, box_s=1e-3)
    assert code == 0, said
    results = read(tmp_path / NAME)["results"]
    assert len(results["rounds"]) == 5  # fewer would say nothing
    assert not results["voided"]
    assert results["requests"][KV_CACHE] == 2
    assert results["requests"]["static"] == results["requests"]["continuous"] == 16
    if SIXTEEN_BITS in results["requests"]:
        assert "--time-box" in results["quality"][SIXTEEN_BITS]["reason"]


def test_what_the_hardware_counts_is_shown_a_token(order: EngineOrder, tmp_path: Path) -> None:
    counters = Counters(perf.offer({"PATH": ""}), Steady())
    code, _ = climb(order, tmp_path, KV_CACHE, "continuous", given=seams(counters=lambda _device: counters))
    assert code == 0
    counted = read(tmp_path / NAME)["results"]["counted"]
    assert set(counted) == {KV_CACHE, "continuous"}
    assert all(0 < one["values"]["joules"] <= 10 and "cycles" in one["reasons"] for one in counted.values())
    assert "Energy a token" in (tmp_path / "ladder.md").read_text()


def test_a_rung_with_wrong_tokens_is_named_and_ends_with_1(order: EngineOrder, tmp_path: Path) -> None:
    code, said = climb(order, tmp_path, PEER, KV_CACHE, given=seams(peer_missing=lambda: None))
    assert code == 1
    assert "WRONG tokens: transformers' generate" in said


def test_rungs_that_cannot_be_climbed_say_so(order: EngineOrder, tmp_path: Path) -> None:
    def untold(_order: EngineOrder, _limit: int) -> list[int]:
        raise ConfigError("there is no text that this model can read")

    code, _ = climb(order, tmp_path, PEER, KV_CACHE, SIXTEEN_BITS, "speculation", given=seams(text_ids=untold))
    assert code == 0
    found = read(tmp_path / NAME)["results"]
    why = {rung["name"]: rung["skipped"] for rung in found["rungs"]}
    assert why[PEER] == "transformers is not installed"
    assert why[KV_CACHE] is None
    if why[SIXTEEN_BITS] is None:
        assert found["quality"][SIXTEEN_BITS] == {"reason": "there is no text that this model can read"}
    with pytest.raises(ConfigError, match="none of these can be climbed here"):
        climb(order, tmp_path / "peer", PEER)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--rungs", "contineous"), "there is no rung 'contineous'; did you mean 'continuous'?"),
        (("--rounds", "3"), "--rounds: 3 is too few"),
        (("--from", "{other}"), "kind 'ledger'"),
        (("--from", "{newer}"), "format 99"),
        (("--from", "{damaged}"), "parts of the run file are missing or damaged"),
        (("--from", "nowhere.json"), "nowhere.json: cannot be read"),
    ],
)
def test_mistakes_get_one_sentence(arguments: tuple[str, ...], sentence: str, command: Command, tmp_path: Path) -> None:
    made = document({"name": "a", "rates": [1.0] * 5})
    files = {
        "other": made | {"kind": "ledger"},
        "newer": made | {"format": 99},
        "damaged": made | {"results": {"rungs": []}},
    }
    paths = {name: tmp_path / f"{name}.json" for name in files}
    for name, content in files.items():
        paths[name].write_text(json.dumps(content))
    done = command("ladder", "--output", str(tmp_path / "out"), *(part.format(**paths) for part in arguments))
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_file_is_drawn_again(tmp_path: Path) -> None:
    source = tmp_path / "ladder.json"
    source.write_text(json.dumps(document({"name": "a", "rates": [1.0] * 5}, {"name": "b", "rates": [2.0] * 5})))
    command = [sys.executable, "-m", "ridgeline", "ladder", "--from", str(source), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "2.00 (2.00 to 2.00)" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.html", "ladder.json", "ladder.md"}


def test_what_a_file_says_cannot_break_the_page_or_the_table() -> None:
    evil = document({"name": "a", "rates": [1.0] * 5}, {"name": "b", "skipped": "<script>alert(1)</script> | x"})
    assert "<script>alert(1)" not in saved(reported(evil, page.told(evil)))
    assert "&lt;script>alert(1)&lt;/script> \\| x" in page.markdown(evil)
