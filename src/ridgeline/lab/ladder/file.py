"""Ladder file: DIR/ladder.json, what a climb has measured so far. Reads and checks; knows no engine and no figure.

{"format": 1, "kind": "ladder", "provenance", "config", "finished": bool,
 "results": {"probe", "sizes", "load": {"alone_ns", "gap_ns", "window_ms"},
             "requests": {rung: of a round},
             "rungs": [{"name", "title", "change", "options", "lossy", "requests", "dtype", "skipped"}],
             "rounds": [{"serial", "order", "guard_ns", "drift", "measures": {rung: ...}, "checks": {rung: ...}}],
             "voided": [{"serial", "guard_ns", "drift"}], "quality": {rung: ...},
             "counted": {rung: {"values": {key: of a token}, "reasons"}}, "uncounted": {key: why}}}

At the end `report` stands beside them: what it says (core/report.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ridgeline.core.errors import ConfigError
from ridgeline.core.report import bare
from ridgeline.lab.runfiles import read_kind

FORMAT, KIND, NAME = 1, "ladder", "ladder.json"
_SAME = ("commit", "dirty", "cpu", "gpus", "libraries")


def read(path: Path) -> dict[str, Any]:
    """Raises ConfigError for what is no ladder of this version."""
    document = bare(read_kind(path, KIND))
    check_shape(path, document)
    return document


def check_same(path: Path, old: Mapping[str, Any], config: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Raises ConfigError where a run cannot be gone on with, because it measures something else."""
    then: Mapping[str, Any] = old["provenance"]
    differing = [f"--{name.replace('_', '-')}" for name in config if config[name] != old["config"].get(name)]
    differing += [name for name in _SAME if then.get(name) != about.get(name)]
    if differing:
        raise ConfigError(
            f"{path}: measured with another {', another '.join(differing)}; go on with the same, give --fresh to "
            "measure anew, or take another --output"
        )


def check_shape(path: Path, document: Mapping[str, Any]) -> None:
    """What every reader relies on, so that a damaged file is a sentence and no traceback. Raises ConfigError."""
    kinds = {
        "rungs": list,
        "rounds": list,
        "voided": list,
        "quality": dict,
        "counted": dict,
        "sizes": dict,
        "load": dict,
        "probe": dict,
    }
    try:
        results: dict[str, Any] = document["results"]
        whole = all(isinstance(results[name], kind) for name, kind in kinds.items())
        whole = whole and all(isinstance(document[name], dict) for name in ("provenance", "config"))
        measured = {rung["name"] for rung in results["rungs"] if rung["skipped"] is None}
        whole = whole and isinstance(document["finished"], bool)
        whole = whole and all(measured <= turn["measures"].keys() for turn in results["rounds"])
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ConfigError(f"{path}: parts of the run file are missing or damaged; measure again with --fresh")
