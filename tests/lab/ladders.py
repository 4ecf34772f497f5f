"""Ladders made by hand: run files as `ridgeline ladder` writes them, with rates in round numbers."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def measure(rate: float) -> Row:
    """A second of work."""
    return {
        "requests": 8, "prompt_tokens": 400, "tokens": 100, "makespan_ns": round(1e11 / rate), "latency_p95_ms": 9.0,
        "ttft_ms": 4.0, "steps": 100, "visits": 100, "rows": 1.0, "positions": 500, "padding": 0, "widest": 50,
        "prefix_hit": 0, "bytes": 10**9, "tokens_per_s": rate,
    }  # fmt: skip


def rung(given: Row) -> Row:
    name = given["name"]
    return {
        "name": name, "title": name.capitalize(), "change": {}, "lossy": given.get("lossy", False),
        "skipped": given.get("skipped"), "dtype": "float32", "requests": 8, "batching": {},
    }  # fmt: skip


def results(*rungs: Row) -> Row:
    """Each rung: name, and rates of its rounds or why it was skipped; check: (compared, ties, wrong) of a round."""
    climbed = [given for given in rungs if "rates" in given]
    rounds = []
    for number in range(len(climbed[0]["rates"])):
        checks = {}
        for given in climbed:
            if "check" in given:
                compared, ties, wrong = given["check"]
                first = "request 0, token 1" if wrong else None
                checks[given["name"]] = {"compared": compared, "ties": ties, "wrong": wrong, "first": first}
        measures = {given["name"]: measure(given["rates"][number]) for given in climbed}
        rounds.append(
            {"serial": number + 1, "order": [], "guard_ns": [1, 1], "drift": 0.0, "measures": measures,
             "checks": checks}
        )  # fmt: skip
    sizes = {"block": 8, "blocks": 1, "prompt": [8, 96], "shared": 48, "new": [4, 16]}
    return {
        "probe": {"decode_ns": 1.0, "position_ns": 1.0}, "sizes": sizes,
        "load": {"alone_ns": 1000, "gap_ns": 100, "window_ms": 1.0}, "rungs": [rung(given) for given in rungs],
        "rounds": rounds, "voided": [], "quality": {}, "counted": {}, "uncounted": {},
    }  # fmt: skip


def document(*rungs: Row, **changes: Any) -> Row:
    found: Row = {
        "format": 1, "kind": "ladder", "finished": True,
        "provenance": {
            "started": "2026-01-01T00:00:00+00:00", "command": ["ridgeline", "ladder"], "commit": None,
            "dirty": False, "cpu": "a processor", "cores": 2, "system": "Linux", "gpus": [],
            "libraries": {"ridgeline": "1"},
        },
        "config": {"model": "demo", "options": {}, "rungs": [], "rounds": 5, "load_seed": 0, "quick": True},
        "results": results(*rungs),
    }  # fmt: skip
    return found | changes
