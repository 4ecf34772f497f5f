"""Compare: run files of one kind, configurations in turn, and a sentence for everything that says nothing."""

from __future__ import annotations

import json
import random
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import pytest

from ridgeline.bench.lengths import Lengths
from ridgeline.build import EngineOrder
from ridgeline.cli.comparing import configuration
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.hub import Access, choose
from ridgeline.lab.compare import contest
from ridgeline.lab.compare.contest import Result, Work, shares_weights
from ridgeline.lab.compare.ranks import counts, factor, left_out
from ridgeline.lab.compare.runs import compare, show
from ridgeline.lab.compare.view import document, tokens_told
from ridgeline.lab.compare.view import show as show_result
from ridgeline.lab.runfiles import Run, read, read_kind
from tests.bench.hand import Screen
from tests.test_cli import run as command

RECORDS = Path(__file__).parents[2] / "records"
POLICIES = RECORDS / "2026-11-24-policies-cpu" / "run.json"
ABOUT: dict[str, Any] = {
    "started": "2026-01-01T00:00:00+00:00", "command": ["ridgeline", "micro"], "commit": "abc", "dirty": False,
    "python": "3.11.7", "system": "Linux", "cpu": "a processor", "cores": 2, "gpus": [], "libraries": {"torch": "2.13"},
}  # fmt: skip
STEADY = [100.0, 101.0, 99.0, 100.5, 99.5]


def file(path: Path, samples: Any = None, **fields: Any) -> Path:
    base: dict[str, Any] = {"format": 1, "kind": "micro", "provenance": ABOUT, "config": {"model": "gpt2"}}
    base |= {"samples": {"norm": {"ns": STEADY}} if samples is None else samples, "results": []}
    path.write_text(json.dumps({k: v for k, v in (base | fields).items() if v is not ...}))
    return path


def shown(a: Run, b: Run, anyway: bool = False) -> str:
    screen = Screen()
    show(screen.console, compare(a, b, anyway), a, b)
    return screen.text


def two(folder: Path, values: list[float], **fields: Any) -> tuple[Run, Run]:
    return read(file(folder / "a.json")), read(file(folder / "b.json", {"norm": {"ns": values}}, **fields))


# The statistics.


def test_the_distribution_of_the_rank_statistic_is_that_of_all_arrangements() -> None:
    for m, n in ((1, 4), (3, 5), (5, 5), (6, 2)):
        found = [0] * (m * n + 1)
        for places in combinations(range(m + n), m):
            found[sum(place - i for i, place in enumerate(places))] += 1
        assert counts(m, n) == found
        assert sum(found) == comb(m + n, m)


def test_how_many_ratios_an_interval_leaves_out() -> None:
    # From tables of the Mann-Whitney test at 5 %: the critical values of 5 and 5, 7 and 7, 10 and 10 are 2, 8 and 23.
    for n, critical in ((5, 2), (7, 8), (10, 23)):
        cut, coverage = left_out(n, n)
        assert cut == critical
        assert coverage >= 0.95
    assert left_out(5, 5)[1] == pytest.approx(1 - 2 * 4 / 252)
    counted, normal = left_out(50, 50), left_out(51, 50)
    assert normal[0] == pytest.approx(counted[0], rel=0.04)
    assert normal[1] == pytest.approx(0.95, abs=0.002)


def test_the_factor_is_the_median_of_all_ratios_and_its_interval_covers() -> None:
    found = factor([2.0 * v for v in STEADY], STEADY)
    assert found.ratio == pytest.approx(2.0)
    assert found.low < 2.0 < found.high
    assert found.tells
    back = factor(STEADY, [2.0 * v for v in STEADY])
    assert (1 / back.high, 1 / back.ratio, 1 / back.low) == pytest.approx((found.low, found.ratio, found.high))
    rng = random.Random(7)
    hits = 0
    for _ in range(400):
        baseline = [rng.lognormvariate(3, 0.2) for _ in range(6)]
        got = factor([1.3 * rng.lognormvariate(3, 0.2) for _ in range(5)], baseline)
        hits += got.low <= 1.3 <= got.high
    assert hits / 400 > 0.93, "seed 7"
    with pytest.raises(ConfigError, match="too few"):
        factor(STEADY[:4], STEADY)


# Run files.


def test_a_real_record_is_read() -> None:
    run = read(POLICIES)
    assert (run.kind, run.model) == ("bench_policies", "gpt2")
    assert (
        run.samples["continuous"]["tokens_per_s"][0]
        == json.loads(POLICIES.read_text())["results"]["continuous"][0]["tokens_per_s"]
    )
    told = shown(run, run)
    assert "cannot be told from 1" in told
    assert "void: 0 or below" in told, "ragged batches have no padding, of which there is no ratio"
    assert "B is" not in told


@pytest.mark.parametrize(
    ("fields", "kind", "name", "quantity"),
    [
        ({"results": {"x": [{"rate": v} for v in STEADY]}}, "script", "x", "rate"),
        ({"results": {"rate": {"x": STEADY}}}, "script", "x", "rate"),
        ({"results": [{"round": i, "load": "x", "rate": v} for i, v in enumerate(STEADY)]}, "script", "x", "rate"),
        (
            {
                "format": 1,
                "results": {
                    "servers": [
                        {"model": {"id": "m"}, "rounds": [{"measures": {"ttft_ms": {"p50": v}}} for v in STEADY]}
                    ]
                },
            },
            "bench serve", "server", "ttft_ms p50",
        ),
    ],
)  # fmt: skip
def test_every_shape_of_repeats(fields: dict[str, Any], kind: str, name: str, quantity: str, tmp_path: Path) -> None:
    base = {"format": ..., "kind": ..., "samples": ...}
    run = read(file(tmp_path / "a.json", **(base | fields)))
    assert run.kind == kind
    assert run.samples == {name: {quantity: STEADY}}
    assert run.model == ("m" if kind == "bench serve" else "gpt2")


def test_a_difference_a_drift_and_nothing(tmp_path: Path) -> None:
    found = compare(*two(tmp_path, [1.2 * v for v in STEADY]), anyway=False)
    assert found.rows[0].reading == "B is higher"
    assert found.rows[0].factor is not None
    assert found.rows[0].factor.ratio == pytest.approx(1.2)
    assert compare(*two(tmp_path, STEADY), anyway=False).rows[0].reading == "cannot be told from 1"
    a, b = two(tmp_path, STEADY)
    with pytest.raises(ConfigError, match=r"void: B drifts by 0\.2.*measure again"):
        compare(a, two(tmp_path, [130.0, 123.0, 116.0, 109.0, 103.0])[1], anyway=False)
    a.samples["other"] = b.samples["other"] = {"ns": [1.0] * 4}
    told = shown(a, b)
    assert "void: 4 and 4 repeats" in told
    assert "at least 5 on each side" in told


def test_what_differs_besides_the_numbers(tmp_path: Path) -> None:
    about = ABOUT | {"commit": "def", "dirty": True, "libraries": {"torch": "2.11"}, "started": "2026-01-02"}
    told = shown(*two(tmp_path, STEADY, provenance=about, config={"model": "demo", "limits": {"seqs": 3}}))
    for note in (
        "model: gpt2 -> demo; the ratios are of different work",
        "commit abc -> def",
        "library torch 2.13 -> 2.11",
        "config limits.seqs (unknown) -> 3",
        "changes that no commit has: B",
        "measured at different times",
    ):
        assert note in told
    assert not compare(read(tmp_path / "a.json"), read(tmp_path / "a.json"), anyway=False).notes


def test_another_machine_only_anyway(tmp_path: Path) -> None:
    a, b = two(tmp_path, STEADY, provenance=ABOUT | {"cpu": "another"})
    with pytest.raises(ConfigError, match=r"different machines \(cpu a processor -> another\).*--anyway"):
        compare(a, b, anyway=False)
    assert "another machine: cpu a processor -> another" in shown(a, b, anyway=True)
    old = {key: value for key, value in ABOUT.items() if key != "gpus"}
    assert compare(*two(tmp_path, STEADY, provenance=old), anyway=False).rows, "an older file does not name its GPUs"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"format": 2}, r"format 2, and this version reads format 1.*commit abc"),
        ({"format": ...}, "format None"),
        ({"format": True}, "format True"),
        ({"kind": "ladder"}, "'micro' and .* of 'ladder'; only two of one kind"),
        ({"samples": {}}, "no repeats in it"),
        ({"samples": {"norm": {"ns": [float("nan")] * 5}}}, "no repeats in it"),
        ({"samples": {"norm": {"ns": [10**400] * 5}}}, "no repeats in it"),
        ({"samples": {"norm": {"ns": [1e-320] * 5}}}, "no repeats in it"),
        ({"kind": "bench serve", "samples": ..., "results": [1]}, "of 'bench serve'; only two of one kind"),
        ({"samples": [1]}, "no repeats in it"),
        ({"samples": {"norm": {"ns": [1.0] * 1001}}}, "1001 repeats"),
        ({"samples": {"mlp": {"ns": STEADY}}}, "no quantity in common: norm against mlp"),
        ({"samples": {"norm": {"ns": STEADY[:3]}}}, "void: 5 and 3 repeats: too few"),
        ({"provenance": []}, "where its numbers come from"),
    ],
    ids=str,
)
def test_a_file_that_says_nothing(fields: dict[str, Any], why: str, tmp_path: Path) -> None:
    a = file(tmp_path / "a.json")
    with pytest.raises(ConfigError, match=why):
        compare(read(a), read(file(tmp_path / "b.json", **fields)), anyway=False)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for data in (b"", b"[1]", b"{", b"\xff", b"[" * 100_000):
        (tmp_path / "x.json").write_bytes(data)
        with pytest.raises(ConfigError, match="not a run file"):
            read(tmp_path / "x.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)
    with (tmp_path / "x.json").open("wb") as big:
        big.truncate((64 << 20) + 1)
    with pytest.raises(ConfigError, match="larger than 64 MiB"):
        read(tmp_path / "x.json")


def test_a_tool_asks_for_its_own_kind(tmp_path: Path) -> None:
    path = file(tmp_path / "a.json", kind="ledger", results=[{"phase": "decode"}])
    assert read_kind(path, "ledger")["results"] == [{"phase": "decode"}]
    with pytest.raises(ConfigError, match="of kind 'ledger', and this command reads kind 'ladder'"):
        read_kind(path, "ladder")


def test_what_a_file_says_is_not_believed_by_the_terminal(tmp_path: Path) -> None:
    a = read(file(tmp_path / "a.json", {"[bold]\x1b[2J": {"[red]x": STEADY}}))
    told = shown(a, a)
    assert "[bold]" in told
    assert "[red]x" in told
    assert "\x1b" not in told


# Configurations.


def ordered(**options: Any) -> EngineOrder:
    config = Config.of(**({"model": "demo", "device": "cpu", "dtype": "float32", "kv_memory": "16MiB"} | options))
    found = choose(config.model, Access())
    return EngineOrder(config, found.name, found.weights)


WORK = Work(requests=3, prompt=Lengths(2, 6), new=Lengths(2, 4), shared=3)


def test_two_configurations_in_turn(tmp_path: Path) -> None:
    a, b = ordered(batching="one"), ordered(batching="continuous", packing="padded")
    said: list[str] = []
    result = contest.run(a, b, WORK, 5, lambda what, _done, _whole: said.append(what))
    assert [what[0] for what in said if "round" in what] == list("BAABBAABBA")
    assert (result.rounds, result.requests, result.parted, result.interrupted) == (5, 15, [], False)
    assert set(result.ratios()) == {"tokens/s", "TTFT p50 ms", "latency p50 ms", "latency p95 ms"}
    assert all(r.rounds == 5 and r.low <= r.ratio <= r.high for r in result.ratios().values())
    screen = Screen()
    show_result(screen.console, result, "batching=one", "the other")
    assert "the same in all of 15 requests" in screen.text
    assert "93.8 of 100" in screen.text
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document(ABOUT, result, ("x", "y"), (a, b), WORK)))
    run = read(path)
    assert (run.kind, run.samples) == ("compare", result.samples)
    assert compare(run, run, anyway=False).rows


def test_the_requests_are_those_of_the_seed() -> None:
    prompts, new = WORK.draw(1, 50)
    assert (prompts, new) == WORK.draw(1, 50)
    assert prompts != WORK.draw(2, 50)[0]
    assert len({tuple(p[:3]) for turn in range(4) for p in WORK.draw(turn, 50)[0]}) == 1, "all begin alike"
    assert all(5 <= len(p) <= 9 and max(p) < 50 for p in prompts)
    assert all(2 <= count <= 4 for count in new)


def test_weights_are_shared_only_where_they_are_the_same() -> None:
    assert shares_weights(ordered(), ordered(batching="static", max_model_len=64))
    assert not shares_weights(ordered(), ordered(dtype="bfloat16"))


def test_answers_that_part_are_counted_and_judged() -> None:
    result = contest.run(ordered(), ordered(random_weights=None, dtype="bfloat16"), WORK, 5, lambda *_: None)
    assert result.requests == 15
    for one in result.parted:
        assert one.a != one.b
        assert one.gap is not None
        assert one.gap < 1.0
    assert "same in all" in tokens_told(Result(requests=3))
    parted = Result(requests=3, parted=[contest.Parted(0, 1, 2, 1e-6), contest.Parted(0, 1, 2, None)])
    assert "differ in 2 of 3 requests" in tokens_told(parted)
    assert "1e-06 nats apart (median of 1" in tokens_told(parted)


def test_an_interrupt_keeps_whole_rounds() -> None:
    def stop(what: str, _done: int, _whole: int) -> None:
        if what == "A, round 2 of 5":
            raise KeyboardInterrupt

    result = contest.run(ordered(), ordered(), WORK, 5, stop)
    assert (result.interrupted, result.rounds, result.ratios()) == (True, 1, {})
    screen = Screen()
    show_result(screen.console, result, "x", "y")
    assert "Interrupted after 1 whole round" in screen.text
    assert "a ratio needs at least 5" in screen.text


def test_options_of_one_side() -> None:
    assert configuration("batching=static, max-num-seqs=8,chunked-prefill=off") == {
        "batching": "static", "max_num_seqs": 8, "chunked_prefill": False,
    }  # fmt: skip
    assert configuration("batch_window_ms=1.5") == {"batch_window_ms": 1.5}
    assert configuration("records/run.json") is None
    for text, why in (
        ("port=1", "option of the server"),
        ("batching=one,batching=static", "twice"),
        ("batching=,", "no option with its value"),
        ("none.toml", "none.toml"),
    ):
        with pytest.raises(ConfigError, match=why):
            configuration(text)


def test_a_file_of_options(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('batching = "static"\nmax-num-seqs = 8\n')
    assert configuration(str(tmp_path / "a.toml")) == {"batching": "static", "max_num_seqs": 8}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["none.json", "none.json"], "none.json: cannot be read"),
        ([str(POLICIES), str(POLICIES), "--rounds", "7"], "--rounds: means nothing for run files"),
        ([str(POLICIES), str(POLICIES), "--model", "demo"], "--model: means nothing for run files"),
        ([str(POLICIES), "batching=one"], "not one of each"),
        (["batching=one", "batching=on"], "did you mean 'one'?"),
        (["batching=one", "batching=static", "--anyway"], "--anyway: means nothing"),
        (["batching=one", "batching=static", "--model", "demo", "--rounds", "4"], "--rounds: 4 is too few"),
        (["batching=one", "batching=static", "--model", "demo", "--input-len", "2000"], "shorten --input-len"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_command_says_what_to_do(arguments: list[str], why: str) -> None:
    done = command("compare", *arguments)
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_compares_files_and_writes_what_it_found(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = command("compare", str(POLICIES), str(POLICIES), "--json", str(out))
    assert done.returncode == 0, done.stderr
    assert "cannot be told from 1" in done.stdout
    assert read_kind(out, "compare-runs")["results"]["rows"][0]["factor"]["ratio"] == 1.0
