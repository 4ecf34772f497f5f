"""Verdict: what rounds say of a rung against the one below it. Pure arithmetic; knows no engine and no page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ridgeline.bench.duel import Ratio, compare
from ridgeline.bench.order import LEAST_ROUNDS
from ridgeline.lab.ladder.why import why

MARGIN = 0.03
"""A difference smaller than this is nobody's reason to choose."""

Verdict = Literal["pays", "costs", "undecided here", "start", "too few rounds", "skipped", "WRONG"]


def judged(ratio: Ratio) -> Verdict:
    """pays, costs: only where the whole interval lies beyond the margin. With five rounds the interval is all of them,
    so for a rung to pay in one run and to cost in another ten rounds would have to be wrong in two directions."""
    if ratio.low > 1 + MARGIN:
        return "pays"
    if ratio.high < 1 - MARGIN:
        return "costs"
    return "undecided here"


@dataclass(frozen=True, slots=True)
class Line:
    """A rung as the table has it. facts: medians over the rounds of what was measured, and what the hardware
    counted for a token. below: title of the rung it is
    compared with. ratio: of tokens/s. output: what the check of its tokens found. why: a sentence."""

    name: str
    title: str
    verdict: Verdict
    facts: Mapping[str, float]
    below: str | None
    ratio: Ratio | None
    output: str
    why: str


def lines(results: Mapping[str, Any]) -> list[Line]:
    """Every rung of a run file's results, from the lowest."""
    made: list[Line] = []
    below: Mapping[str, Any] | None = None
    for rung in results["rungs"]:
        if rung["skipped"] is not None:
            made.append(Line(rung["name"], rung["title"], "skipped", {}, None, None, "", _sentence(rung["skipped"])))
            continue
        made.append(_line(rung, below, results))
        below = rung
    return made


def climbed(results: Mapping[str, Any]) -> Ratio | None:
    """The highest rung's tokens/s over the lowest's; None where too few rounds or rungs were measured."""
    names = [rung["name"] for rung in results["rungs"] if rung["skipped"] is None]
    return _compared(results["rounds"], names[-1], names[0]) if len(names) > 1 else None


def is_wrong(results: Mapping[str, Any], name: str) -> bool:
    return any(turn["checks"].get(name, {}).get("wrong") for turn in results["rounds"])


def _line(rung: Mapping[str, Any], below: Mapping[str, Any] | None, results: Mapping[str, Any]) -> Line:
    rounds, name = results["rounds"], rung["name"]
    mine = _medians(rounds, name)
    verdict: Verdict = "start"
    ratio, said = None, "The lowest rung: there is nothing below to compare it with."
    if below is not None:
        ratio = _compared(rounds, name, below["name"])
        verdict = "too few rounds" if ratio is None else judged(ratio)
        said = "Too few rounds were measured to say anything."
    if below is not None and ratio is not None:
        said = why(verdict, _medians(rounds, below["name"]), mine)
    if is_wrong(results, name):
        verdict = "WRONG"
    title = None if below is None else str(below["title"])
    facts = mine | results["counted"].get(name, {"values": {}})["values"]
    return Line(name, rung["title"], verdict, facts, title, ratio, _output(rung, results), said)


def _compared(rounds: Sequence[Mapping[str, Any]], name: str, below: str) -> Ratio | None:
    if len(rounds) < LEAST_ROUNDS:
        return None
    mine, theirs = ([turn["measures"][which]["tokens_per_s"] for turn in rounds] for which in (name, below))
    return compare(mine, theirs)


def _medians(rounds: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    """The medians of what was measured, and of what follows: a token's share of it."""
    found: dict[str, list[float]] = {}
    for turn in rounds:
        for fact, value in _facts(turn["measures"][name]).items():
            found.setdefault(fact, []).append(value)
    return {fact: statistics.median(values) for fact, values in found.items()}


def _facts(measure: Mapping[str, Any]) -> dict[str, float]:
    tokens = measure["tokens"]
    facts = {name: measure[name] for name in ("requests", "tokens_per_s", "latency_p95_ms")}
    if measure["ttft_ms"] is not None:
        facts["ttft_ms"] = measure["ttft_ms"]
    if measure["positions"] is not None:
        facts |= {
            "rows": measure["rows"],
            "positions_a_token": measure["positions"] / tokens,
            "padding": measure["padding"] / measure["positions"],
            "prefix": measure["prefix_hit"] / measure["prompt_tokens"],
            "steps_a_visit": measure["steps"] / measure["visits"],
            "widest": measure["widest"],
            "bytes_a_token": measure["bytes"] / tokens,
        }
    return facts


def _output(rung: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """What the check of the tokens found, or for a lossy rung what its quality is."""
    if rung["lossy"]:
        quality = results["quality"].get(rung["name"])
        if quality is None:
            return "quality not judged"
        if "reason" in quality:
            return f"quality not judged: {quality['reason']}"
        return (
            f"perplexity {quality['perplexity']:.3f} ({quality['reference_perplexity']:.3f}), "
            f"{quality['agreement']:.2%} agree ({quality['model']})"
        )
    checks = [turn["checks"][rung["name"]] for turn in results["rounds"] if rung["name"] in turn["checks"]]
    compared, ties, wrong = (sum(check[what] for check in checks) for what in ("compared", "ties", "wrong"))
    if wrong:
        first = next(check["first"] for check in checks if check["first"])
        return f"{wrong} of {compared} outputs differ and no rounding explains it: {first}"
    if not checks:
        return "the reference"
    if not compared:
        return "not checked"
    return f"{compared - ties} identical" + (f", {ties} parted at a tie by rounding" if ties else "")


def _sentence(reason: str) -> str:
    return f"Skipped: {reason}{'' if reason.endswith('.') else '.'}"
