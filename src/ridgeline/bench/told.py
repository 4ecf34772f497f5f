"""Told: what a run file of `bench serve` says, as the page draws it. Knows the file; knows no server and no screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ridgeline.bench.duel import Ratio, left_out
from ridgeline.bench.fleet import Load
from ridgeline.bench.measures import QUANTILES, Measures, Spread
from ridgeline.bench.tables import (
    RATIOS,
    SPREADS,
    compared,
    notes,
    ratio_rows,
    ratio_sentences,
    sentences,
    spread_rows,
    spreads,
)
from ridgeline.bench.words import number, plural
from ridgeline.core.report import Bar, Bars, Lines, Mark, Report, Section, Series

Row = Mapping[str, Any]
TERMS = "TTFT: to the first token. TPOT: a token after it. ITL: between two events. E2E: the whole answer."


@dataclass(frozen=True, slots=True)
class Server:
    """rounds: those that had a request."""

    url: str
    model: str
    rounds: Sequence[tuple[Measures, Load]]


def told(document: Row) -> Report:
    """document: what `bench serve --json` writes. Raises KeyError, TypeError or ValueError for what it would not."""
    config, results = document["config"], document["results"]
    servers = [server for server in map(_server, results["servers"]) if server.rounds]
    limits = {str(name): float(limit) for name, limit in config["limits_ms"].items()}
    sections = [_latencies(server, len(servers) > 1, limits) for server in servers]
    if any(len(server.rounds) > 1 for server in servers):
        sections.append(_rounds(servers))
    if results["ratios"] is not None:
        found = {name: Ratio(**ratio) for name, ratio in results["ratios"].items()}
        sections.append(_ratios(found, servers))
    remarks = ["The run was interrupted."] if document["interrupted"] else []
    return Report("Serving under load", _subtitle(servers, config), sections, (TERMS,), remarks)


def _server(item: Row) -> Server:
    model = (item["model"] or {}).get("id", "a model without a name")
    return Server(item["url"], str(model), [_load(turn) for turn in item["rounds"] if turn["measures"] is not None])


def _load(turn: Row) -> tuple[Measures, Load]:
    found = {f.name: turn["measures"][f.name] for f in fields(Measures)}
    spread = {name: Spread(**value) for name, value in found.items() if name.endswith(("_ms", "_after_s")) and value}
    return Measures(**(found | spread)), Load(cpu_shares=turn["cpu_shares"])


def _subtitle(servers: Sequence[Server], config: Row) -> str:
    models = " and ".join(dict.fromkeys(server.model for server in servers)) or "No server answered"
    if config["request_rate"] is None:
        way = f"{config['concurrency']} requests in flight"
    else:
        way = f"{config['request_rate']:g} requests a second ({config['arrivals']})"
    work = config["workload"]
    prompt, new = (f"{work[name]['low']} to {work[name]['high']}" for name in ("input_len", "output_len"))
    return f"{models}. {way}; workload {work['kind']}, prompts of {prompt} and answers of {new} tokens."


def _latencies(server: Server, is_one_of_more: bool, limits: Mapping[str, float]) -> Section:
    m, load = server.rounds[-1]
    which = f" of {server.url}" if is_one_of_more else ""
    lines = tuple(_lines(m))
    last = f" The last of {plural(len(server.rounds), 'round')}." if len(server.rounds) > 1 else ""
    return Section(
        title=f"Latency and throughput{which}",
        question=f"How long did a request wait, from the typical one to the unluckiest?{last}",
        figure=Lines("share of requests that waited no longer", "milliseconds", lines, log=True) if lines else None,
        readings=(*sentences(m, limits), *notes(m, load)),
        headings=("milliseconds", *SPREADS),
        rows=tuple(spread_rows(m)),
        open_table=True,
    )


def _lines(m: Measures) -> Iterator[Series]:
    """A spread without a time, as where nothing was late, has no place on a logarithmic axis."""
    for name, spread in spreads(m).items():
        values = {part: getattr(spread, part) for part in (*QUANTILES, "max")}
        marks = (Mark(part, ms, f"{name} {part}: {ms:,.1f} ms") for part, ms in values.items() if ms > 0)
        if shown := tuple(marks):
            yield Series(name, shown)


def _rounds(servers: Sequence[Server]) -> Section:
    bars = []
    for server in servers:
        for i, (m, _) in enumerate(server.rounds, 1):
            rate = m.tokens_per_s or 0.0
            name = f"{server.url}, {i}" if len(servers) > 1 else f"round {i}"
            hint = f"{server.url}, round {i}: {rate:.1f} tokens/s"
            bars.append(Bar(name, rate, number(rate, 1), hint, server.url if len(servers) > 1 else ""))
    return Section("Round by round", "Did the machine hold still?", Bars("output tokens a second", tuple(bars)))


def _ratios(found: Mapping[str, Ratio], servers: Sequence[Server]) -> Section:
    mine, theirs = ([m for m, _ in server.rounds] for server in servers)
    return Section(
        title="One against the other",
        question=f"{compared(servers[0].url, servers[1].url)}.",
        readings=tuple(ratio_sentences(found, left_out(mine, theirs))),
        headings=RATIOS,
        rows=tuple(ratio_rows(found)),
        open_table=True,
    )
