"""The ledger: sentences and tables that follow the numbers, run files, and a measurement of a tiny model."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ridgeline.build import EngineOrder
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.lab.ledger.causes import Accountant
from ridgeline.lab.ledger.entries import Step
from ridgeline.lab.ledger.file import Ledger, from_document, read_ledger, to_document
from ridgeline.lab.ledger.measuring import LedgerOrder, each_step, measure
from ridgeline.lab.ledger.sentences import percent, sentences, size, time
from ridgeline.lab.ledger.showing import by_place, by_region, show
from ridgeline.lab.rig import Workbench
from ridgeline.runner.places import REGION_OF
from tests.lab.machines import MACHINE, without_cache
from tests.lab.steps import FORMATS, SPEC, entry, host, steadily, step
from tests.tiny_gpt2 import write_tiny_gpt2

BOOKS = Accountant(MACHINE, FORMATS)
STEP = step(
    entry("attention", 2_500_000, bytes=480_000, launches=2, calls=12, operand_bytes=2_000_000),
    entry("mlp", 1_000_000, bytes=900_000, launches=4),
    host(200_000),
    step_ns=steadily(3_600_000),
)


def ledger(*steps: Step) -> Ledger:
    return Ledger({"started": "now"}, "tiny", SPEC, FORMATS, {"rounds": 5}, MACHINE, steps)


def shown(found: Ledger, *, places: bool = False, width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO())
    show(found, by_place if places else by_region, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().replace("\u00a0", " ")


def test_sentences_follow_the_numbers() -> None:
    first, second, third = sentences(STEP, BOOKS, SPEC)
    assert first == (
        "At batch 1 and context 64 a step takes 3.60 ms; the floor is 1.44 ms, set by reading and writing 1.38 MB at "
        "1.00 GB/s."
    )
    # 2.0 ms above the floor, of which 10 launches too many are 0.1 ms and 1.52 MB from the L3 0.152 ms.
    assert second == (
        "Attention is the largest distance: 2.00 ms above its floor, most of it not explained by anything counted."
    )
    assert third.startswith("The step moves what it must at 38 % of the memory bandwidth and computes at 38 % ")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"calls": 150}, "most of it launch gaps: 150 operations where 2 would do"),
        ({"operand_bytes": 20_480_000}, "most of it extra passes: its operations read and write 20.0 MB more"),
        (
            {"calls": 82, "operand_bytes": 7_480_000},
            "the largest part of it (40 %) launch gaps: 82 operations where 2 would do",
        ),
    ],
)
def test_the_largest_cause_is_named(facts: dict[str, Any], words: str) -> None:
    far = entry("attention", 2_500_000, bytes=480_000, launches=2, **facts)
    assert words in sentences(step(far, host(200_000)), BOOKS, SPEC)[1]


def test_the_host_can_be_the_largest_distance() -> None:
    made = step(entry("mlp", 100_000, bytes=80_000), host(500_000))
    assert (
        "The host (planning, packing and what lies between operations) is the largest distance: 500 us"
        in (sentences(made, BOOKS, SPEC)[1])
    )


def test_a_step_below_its_floor_is_said_to_be() -> None:
    made = step(entry("mlp", 500_000, bytes=900_000), entry("head", 90_000, bytes=100_000))
    said = sentences(made, BOOKS, SPEC)
    assert "that is less than the floor of 1.02 ms" in said[0]
    assert not any("largest distance" in sentence for sentence in said)


def test_what_sets_the_floor_is_named() -> None:
    mlp = entry("mlp", 900_000, bytes=80_000)
    by_launches = replace(mlp, predicted=replace(mlp.predicted, binds="launch", launches=9))
    assert "set by 9 launches of 10.0 us each" in sentences(step(by_launches), BOOKS, SPEC)[0]
    by_matrix = replace(mlp, predicted=replace(mlp.predicted, binds="matrix float32", flops=5_000_000))
    assert "set by 5.00 MFLOP at 1.00 TFLOP/s" in sentences(step(by_matrix), BOOKS, SPEC)[0]
    by_cache = replace(mlp, predicted=replace(mlp.predicted, binds="L3"))
    assert "80.0 kB from L3 at 10.0 GB/s" in sentences(step(by_cache), BOOKS, SPEC)[0]


def test_a_model_that_fits_the_cache_says_nothing_of_bandwidth() -> None:
    small = replace(SPEC, layers=1, d_model=32, d_inner=64)
    warnings = [s for s in sentences(STEP, BOOKS, small) if "conclusions about memory bandwidth do not hold" in s]
    assert len(warnings) == 1
    assert "fit L3" in warnings[0]
    for books, spec in ((Accountant(without_cache(), FORMATS), small), (BOOKS, SPEC)):
        assert not any("do not hold" in sentence for sentence in sentences(STEP, books, spec))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (time(999.7e3), "1.00 ms"),
        (time(12.34e6), "12.3 ms"),
        (time(2e9), "2.00 s"),
        (time(0.4), "0 ns"),
        (size(0), "0 B"),
        (size(257e6), "257 MB"),
        (percent(0.0951), "10 %"),
        (percent(0.0123), "1.2 %"),
    ],
)
def test_numbers_have_three_digits_and_a_unit(text: str, expected: str) -> None:
    assert text == expected


def test_the_table_has_every_region_and_what_they_sum_to() -> None:
    text = shown(ledger(STEP))
    assert "decode, batch 1, context 64" in text
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert {"attention", "mlp", "host", "sum", "step"} <= set(rows)
    assert "102.8 % of the step measured without regions" in rows["sum"]
    assert "2.00 ms: not explained" in rows["attention"]
    assert "timing them changes the step's time by +2.0 % (+2.0 % to +2.0 %, 94 % sure, 5 rounds)" in text
    assert "Nothing is counted: nobody did." in text


def test_places_are_rows_of_their_own() -> None:
    both = step(entry("mlp", 1e6, place="mlp_in"), entry("mlp", 2e6, place="mlp_out"))
    rows = [line.split()[0] for line in shown(ledger(both), places=True).splitlines() if line.strip()]
    assert {"mlp_in", "mlp_out"} <= set(rows)
    assert "mlp" not in rows


def test_a_narrow_terminal_gets_the_reasons_below_the_numbers() -> None:
    lines = shown(ledger(STEP), width=80).splitlines()
    rows = [line for line in lines if line.startswith("attention")]
    assert len(rows) == 2
    assert "2.50 ms" in rows[0]
    assert rows[1].split()[1:4] == ["2.00", "ms:", "not"]
    assert max(map(len, lines)) <= 80


def test_what_a_file_says_of_itself_cannot_command_the_terminal() -> None:
    strange = replace(entry("mlp", 1e6), place="[red]\x1b[2Jmlp")
    found = replace(ledger(replace(step(strange), uncounted="\x1b]0;gone\x07")), model="\x1b[31mtiny")
    text = shown(found, places=True)
    assert "\x1b" not in text
    assert "[red]" in text


def test_a_run_file_says_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(json.dumps(to_document(ledger(STEP))))
    again = read_ledger(path)
    assert again.steps == (STEP,)
    assert shown(again) == shown(ledger(STEP))


def _broken(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(to_document(ledger(STEP))))
    for name, value in changes.items():
        at: Any = document
        *path, last = (int(part) if part.isdigit() else part for part in name.split("__"))
        for part in path:
            at = at[part]
        at[last] = value
    return document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "not a run file"),
        (_broken(format=2), "format 2 and kind 'ledger'"),
        (_broken(kind="ladder"), "kind 'ladder'; this command reads format 1 and kind 'ledger'"),
        (_broken(results=None), "not a ledger's run file"),
        (_broken(results__0__phase="rest"), "phase 'rest'"),
        (_broken(results__0__places=[]), "without places"),
        (_broken(results__0__step_ns__median=float("nan")), "not a number"),
        (_broken(results__0__step_ns__low=9e12), "times"),
        (_broken(results__0__places__0__region="brain"), "region 'brain'"),
        (_broken(results__0__places__0__calls=-1), "-1 is not a whole number"),
        (_broken(results__0__rounds=[[1, 0]]), "a time of 0"),
        (_broken(config__spec={"layers": 2}), "not a ledger's run file"),
        (_broken(config__spec__layers="2"), "layers '2'"),
        (_broken(config__formats__compute="int8"), "no matrix int8"),
        (_broken(results__0__places__0__predicted__binds="L9"), "no L9"),
        (_broken(results__0__rounds=[[1, 1]] * 4), "4 rounds"),
        (_broken(results__0__batch=1 << 40), "not a whole number"),
        (_broken(config__spec__layers=1 << 30), "layers"),
        (_broken(ceilings__levels=[]), "not a file of ceilings"),
    ],
)
def test_another_file_is_refused_with_a_reason(document: Any, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        from_document("some.json", document)
    assert str(refused.value).startswith("some.json")
    assert words in str(refused.value)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_ledger(path)
    path.write_bytes(b"\xff{")
    with pytest.raises(ConfigError, match="not a run file"):
        read_ledger(path)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"rounds": 4}, "--rounds: 4"),
        ({"batches": (1, 0)}, "--batch: 0"),
        ({"context": 0}, "--context: 0"),
        ({"steps": 1}, "--steps: 1"),
        ({"prefill_tokens": -1}, "--prefill: -1"),
        ({"batches": (), "prefill_tokens": 0}, "nothing to measure"),
    ],
)
def test_orders_that_make_no_sense_are_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LedgerOrder(**asked)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    folder = write_tiny_gpt2(tmp_path_factory.mktemp("models") / "tiny")
    options = {"model": str(folder), "dtype": "float32", "device": "cpu"}
    return Workbench.open(EngineOrder(Config.from_mapping(options), "tiny", folder), lambda *_: None)


def test_a_tiny_model_is_measured(bench: Workbench) -> None:
    order = LedgerOrder(batches=(1, 3), context=24, steps=4, rounds=5, prefill_tokens=40)
    seen: list[tuple[int, int]] = []
    steps = measure(bench, MACHINE, order, lambda _what, done, whole: seen.append((done, whole)))
    assert [(s.phase, s.batch, s.context, s.tokens) for s in steps] == [
        ("decode", 1, 24, 1), ("decode", 3, 24, 3), ("prefill", 1, 40, 40),
    ]  # fmt: skip
    assert seen[-1] == (order.whole - 1, order.whole)
    for made in steps:
        assert [(e.region, e.place) for e in made.places] == [(region, place) for place, region in REGION_OF.items()]
        assert all(e.timed_ns.low > 0 for e in made.places)
        assert len(made.rounds) == 5
        assert made.padding == 0
        weights = 4 * bench.spec.layers * bench.spec.d_model * bench.spec.d_inner
        mlp = next(e for e in made.places if e.place == "mlp_in")
        assert mlp.predicted.launches == bench.spec.layers
        assert mlp.predicted.bytes > weights
        assert mlp.operand_bytes is not None
        assert mlp.operand_bytes > weights
    found = replace(ledger(*steps), spec=bench.spec, formats=bench.formats)
    assert from_document("it", json.loads(json.dumps(to_document(found)))).steps == tuple(steps)
    assert "prefill, 1 x 40 tokens" in shown(found)


def test_an_interrupt_keeps_the_steps_before_it(bench: Workbench) -> None:
    order = LedgerOrder(batches=(1, 2), context=24, steps=2, rounds=5, prefill_tokens=0)
    attention = bench.loaded.model.blocks[0].attn_out

    def progress(what: str, _done: int, _whole: int) -> None:
        if what == "decode, batch 2":
            raise KeyboardInterrupt

    steps: list[Step] = []
    with pytest.raises(KeyboardInterrupt):
        steps.extend(each_step(bench, MACHINE, order, progress))
    assert [made.batch for made in steps] == [1]
    assert bench.loaded.model.blocks[0].attn_out is attention


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"context": 255, "prefill_tokens": 0}, "--context 255: .* 256 positions"),
        ({"context": 4, "prefill_tokens": 0}, "--context 4: .* before the first token"),
        ({"batches": (), "prefill_tokens": 256}, "--prefill 256: .* 256 positions"),
    ],
)
def test_a_model_without_room_is_refused_at_once(bench: Workbench, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        measure(bench, MACHINE, LedgerOrder(**asked), lambda *_: None)


def test_ceilings_of_another_format_are_refused_at_once(bench: Workbench) -> None:
    other = replace(MACHINE, matrix={"bfloat16": MACHINE.matrix["bfloat16"]})
    with pytest.raises(ConfigError, match="no matrix rate for float32"):
        measure(bench, other, LedgerOrder(context=64, prefill_tokens=0), lambda *_: None)
