"""Pairing: ratios of ours to other programs, over the rounds that both have. Knows lines that benches print; knows no
process and no file.

A run is one process of one side in one round: {"round", "kind", "side", "lines": [what it printed], "error": None or
why it does not count}. kind: the type under which sides are paired, for example int8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from ridgeline.bench.duel import compare
from ridgeline.bench.order import LEAST_ROUNDS

OURS = "ours"
Run = dict[str, Any]


def cell(line: Run) -> tuple[str, int | None, int | None]:
    is_decode = line["what"] == "decode"
    return (
        (line["what"], line.get("batch"), line.get("context")) if is_decode else ("prefill", None, line.get("tokens"))
    )


def said(one: tuple[str, int | None, int | None]) -> str:
    what, batch, tokens = one
    return f"decode, batch {batch}, context {tokens}" if what == "decode" else f"prefill, {tokens} tokens"


def rates(runs: Sequence[Run]) -> dict[str, dict[str, dict[int, float]]]:
    """{cell: {side: {round: tokens/s}}}, without what went wrong."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for run in sorted((run for run in runs if run["error"] is None), key=lambda run: run["round"]):
        for line in run["lines"]:
            name = f"{run['kind']}: {said(cell(line))}"
            found.setdefault(name, {}).setdefault(run["side"], {})[run["round"]] = float(line["tokens_per_s"])
    return found


def table(runs: Sequence[Run], widths: Mapping[tuple[str, str], Mapping[str, str]]) -> list[dict[str, Any]]:
    """A row for each cell: the ratio of ours to every peer over the rounds that both have, the better peer first.

    widths: {(type, side): {"weights": in words, "kv": in words}}.
    """
    rows = []
    for name, by_side in rates(runs).items():
        ours = by_side.pop(OURS, {})
        kind = name.rpartition(": ")[0]
        peers = []
        for side, theirs in by_side.items():
            both = [turn for turn in ours if turn in theirs]
            pair = [ours[turn] for turn in both], [theirs[turn] for turn in both]
            found = compare(*pair) if len(both) >= LEAST_ROUNDS else None
            about: dict[str, Any] = {
                "name": side,
                **widths[kind, side],
                "rounds": len(both),
                "tokens_per_s": median(theirs.values()),
            }
            peers.append({**about, "ratio": found and asdict(found), "drifts": found is not None and found.drifts})
        peers.sort(key=lambda peer: -peer["tokens_per_s"])
        row: dict[str, Any] = {"tokens_per_s": median(ours.values()) if ours else None, **widths[kind, OURS]}
        rows.append({"cell": name, "ours": row, "peers": peers})
    return rows


def printed(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown, as a record keeps it."""
    lines = ["| cell | ours tok/s (weights; KV) | better peer tok/s (weights; KV) | ours / peer | interval | others |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        shown = [width(side) for side in (row["ours"], *row["peers"])]
        told = [ratio(peer) for peer in row["peers"]] or [("-", "no peer")]
        others = ", ".join(f"{p['name']} {r}" for p, (r, _) in zip(row["peers"][1:], told[1:], strict=True))
        better = f"{row['peers'][0]['name']}: {shown[1]}" if row["peers"] else "-"
        lines.append(f"| {row['cell']} | {shown[0]} | {better} | {told[0][0]} | {told[0][1]} | {others} |")
    return lines


def width(side: dict[str, Any]) -> str:
    rate = side["tokens_per_s"]
    return f"{'-' if rate is None else f'{rate:.1f}'} ({side['weights']}; {side['kv']})"


def ratio(peer: dict[str, Any]) -> tuple[str, str]:
    r = peer["ratio"]
    if r is None:
        return "-", f"{peer['rounds']} of {LEAST_ROUNDS} rounds"
    note = ", the peer drifts by more" if peer["drifts"] else ""
    return f"{r['ratio']:.3f}", f"[{r['low']:.3f}, {r['high']:.3f}], {r['rounds']} rounds{note}"
