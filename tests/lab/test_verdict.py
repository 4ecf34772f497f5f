"""Verdict, why and agreement: what numbers are made to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ridgeline.bench.duel import compare
from ridgeline.lab.ladder.agreement import Reference, check_round
from ridgeline.lab.ladder.ladder import drift
from ridgeline.lab.ladder.verdict import judged, lines
from ridgeline.lab.ladder.why import why
from ridgeline.lab.ladder.work import SIZES, Request, Sizes, Speed, draw, fitting, shares
from tests.lab.ladders import measure, results


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([1.2, 1.1, 1.3, 1.05, 1.5], "pays"),
        ([0.9, 0.8, 0.95, 0.9, 0.7], "costs"),
        ([1.2, 1.1, 1.3, 1.02, 1.5], "undecided here"),  # one round within the margin
        ([1.2, 1.1, 0.9, 1.3, 1.2], "undecided here"),
        ([1.0, 1.0, 1.0, 1.0, 1.0], "undecided here"),
    ],
)
def test_a_verdict_needs_every_one_of_five_rounds(ratios: list[float], verdict: str) -> None:
    assert judged(compare(ratios, [1.0] * 5)) == verdict


def test_a_sentence_names_what_points_the_way_the_verdict_went() -> None:
    below, mine = {"rows": 1.0, "positions_a_token": 2.0}, {"rows": 4.0, "positions_a_token": 3.0}
    assert why("pays", below, mine) == "4.00 sequences instead of 1.00 share one reading of the weights in a step."
    assert why("costs", below, mine) == "Each new token computes 3.00 positions instead of 2.00."
    assert why("pays", mine, below).startswith("Each new token computes 2.00 positions")
    undecided = why("undecided here", below, mine)
    assert undecided.startswith("What changed did not decide the speed: ")
    assert why("pays", below, below) == "The counters do not explain it."
    assert why("pays", {}, mine).startswith("Nothing is counted inside the rung below")


def test_first_tokens_are_compared_only_between_equal_loads() -> None:
    below = {"rows": 1.0, "requests": 8.0, "ttft_ms": 100.0}
    assert why("pays", below, below | {"ttft_ms": 50.0}).endswith("within 50.0 ms instead of 100 ms.")
    assert "first tokens" not in why("pays", below, below | {"ttft_ms": 50.0, "requests": 4.0})


def test_lines_of_a_run_file() -> None:
    found = results(
        {"name": "low", "rates": [10, 10, 10, 10, 10]},
        {"name": "none", "skipped": "not in this version"},
        {"name": "high", "rates": [20, 22, 21, 19, 20], "check": (8, 1, 0)},
        {"name": "odd", "rates": [20, 22, 21, 19, 20], "check": (8, 0, 2)},
    )
    low, none, high, odd = lines(found)
    assert [line.verdict for line in (low, none, high, odd)] == ["start", "skipped", "pays", "WRONG"]
    assert none.why == "Skipped: not in this version."
    assert high.ratio is not None
    assert high.below == "Low"
    assert (high.ratio.low, high.ratio.ratio, high.ratio.high) == (1.9, 2.0, 2.2)
    assert high.output == "35 identical, 5 parted at a tie by rounding"
    assert odd.output.startswith("10 of 40 outputs differ and no rounding explains it: request 0")
    assert lines(results({"name": "a", "rates": [1, 1]}, {"name": "b", "rates": [2, 2]}))[1].verdict == "too few rounds"


def test_a_lossy_rung_shows_its_quality_and_what_the_hardware_counted() -> None:
    quality = {"model": "demo", "perplexity": 30.5, "reference_perplexity": 30.0, "agreement": 0.95, "positions": 99}
    found = results({"name": "low", "rates": [1.0] * 5}, {"name": "int8", "rates": [2.0] * 5, "lossy": True})
    assert lines(found)[1].output == "quality not judged"
    found["quality"]["int8"] = quality
    found["counted"]["int8"] = {"values": {"joules": 0.25}, "reasons": {}}
    line = lines(found)[1]
    assert line.output == "perplexity 30.500 (30.000), 95.00% agree (demo)"
    assert line.facts["joules"] == 0.25


def reference(*near: tuple[int, int]) -> Reference:
    """One that holds these pairs of tokens, and no others, for tied."""

    def gap(_prefix: Sequence[int], a: int, b: int) -> float:
        return 0.0 if (a, b) in near else 3.0

    return Reference(gap, 1e-3, {})


REQUESTS = [Request((1, 2), 3, 0), Request((3,), 2, 0)]


def test_tokens_that_part_are_a_tie_or_wrong() -> None:
    outputs: dict[str, list[list[int]]] = {
        "low": [[5, 6, 7], [8, 9]],
        "tied": [[5, 1, 1], [8, 9]],
        "wrong": [[5, 6, 7], [4, 9]],
        "short": [[5, 6], [8, 9]],
    }
    checks = check_round(list(outputs), outputs, REQUESTS, {"low": reference((6, 1))}, "transformers")
    assert "low" not in checks
    assert (checks["tied"].compared, checks["tied"].ties, checks["tied"].wrong) == (2, 1, 0)
    assert checks["wrong"].wrong == 1
    assert checks["wrong"].first is not None
    assert "request 1, token 0: 4 instead of 8, 3 nats apart" in checks["wrong"].first
    assert checks["short"].first == "request 0, 2 tokens instead of 3"


def test_whoever_stands_on_a_lossy_rung_is_held_to_its_tokens() -> None:
    outputs = {"low": [[1]], "lossy": [[2]], "above": [[2]]}
    checks = check_round(
        list(outputs), outputs, REQUESTS[:1], {"low": reference(), "lossy": reference()}, "transformers"
    )
    assert set(checks) == {"above"}
    assert checks["above"].wrong == 0


def test_the_peer_is_judged_by_the_lowest_engine() -> None:
    outputs = {"transformers": [[1]], "low": [[2]]}
    checks = check_round(list(outputs), outputs, REQUESTS[:1], {"low": reference()}, "transformers")
    assert checks["transformers"].wrong == 1


def test_drift_is_of_halves_and_not_of_one_reading() -> None:
    assert drift([100, 100, 500, 100, 100, 100]) == 0
    assert drift([100, 100, 100, 130, 130, 130]) == pytest.approx(0.26, abs=0.01)


def test_a_load_comes_again_from_its_seed_and_every_block_has_the_same_lengths() -> None:
    sizes = SIZES[3]
    drawn = draw(sizes, 1000, 5_000_000, (7, 1))
    assert drawn == draw(sizes, 1000, 5_000_000, (7, 1))
    assert drawn != draw(sizes, 1000, 5_000_000, (7, 2))

    def lengths(block: list[Request]) -> list[tuple[int, int]]:
        return sorted((len(request.prompt), request.new) for request in block)

    blocks = [drawn[at : at + sizes.block] for at in range(0, sizes.requests, sizes.block)]
    assert len(blocks) == sizes.blocks
    assert all(lengths(block) == lengths(blocks[0]) for block in blocks)
    stems = {request.prompt[: sizes.shared] for request in drawn if len(request.prompt) > sizes.shared}
    assert len(stems) == 1


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("seed", range(5))
def test_any_two_neighbours_have_the_same_mix(sizes: Sizes, seed: int) -> None:
    drawn = draw(sizes, 1000, 5_000_000, (seed,))
    for a, b in zip(drawn[::2], drawn[1::2], strict=True):
        assert abs(len(a.prompt) + len(b.prompt) - sum(sizes.prompt)) <= 1
        assert abs(a.new + b.new - sum(sizes.new)) <= 1


def test_a_slow_machine_gets_short_requests_and_a_short_model_a_sentence() -> None:
    fast, slow = Speed(1e4, 1e3), Speed(1e9, 1e8)
    assert fitting(fast, 1024, 7, 200.0) == SIZES[0]
    assert fitting(slow, 1024, 7, 200.0) == SIZES[-1]
    assert fitting(fast, 100, 7, 200.0).longest <= 100
    with pytest.raises(Exception, match="shortest load has sequences of 48 tokens, and this model has 32 positions"):
        fitting(fast, 32, 7, 200.0)


def test_requests_are_shared_out_by_pace_and_end_in_time() -> None:
    alone, batched = {"no-cache": 1.0, "kv-cache": 0.1}, {"static": 0.02, "graph": 0.001}
    found = shares(alone, batched, 8, 10.0)
    assert found == {"no-cache": 2, "kv-cache": 8, "static": 192, "graph": 192}
    paces = alone | batched
    assert sum(paces[name] * count for name, count in found.items()) <= 10.0
    slower = shares(alone | {"no-cache": 2.0}, batched, 8, 10.0)
    assert slower["no-cache"] == 2
    assert slower["graph"] == 192  # the slowest rung does not make the others' load small
    least = shares(alone, batched, 4, 0.0)
    assert least == {"no-cache": 2, "kv-cache": 2, "static": 16, "graph": 16}


def test_a_measure_knows_its_rate() -> None:
    made: dict[str, Any] = measure(50.0)
    assert made["tokens_per_s"] == 50.0
