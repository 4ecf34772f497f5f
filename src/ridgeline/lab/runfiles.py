"""Run files, read: what was measured, on what, and every repeat of it. Knows files; knows no statistics and no engine.

Whoever gave the file is not trusted: its size is bounded, and only finite numbers come through. A run file of the
laboratory keeps its repeats under `samples`, as {name: {quantity: [a value for each repeat]}}, in the order in which
they were measured. The files of `bench serve` and of the scripts have shapes of their own, which are read as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ridgeline.core.errors import ConfigError

FORMAT = 1
MOST_BYTES = 64 << 20
MOST_REPEATS = 1000
Samples = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Run:
    """kind: which measurement it is; only runs of one kind compare. model: as the file calls it, where it does.
    samples: {name: {quantity: values}}, empty where the file keeps no repeats."""

    path: Path
    kind: str
    provenance: dict[str, Any]
    config: dict[str, Any]
    model: str | None
    samples: Samples


def read(path: Path) -> Run:
    """Raises ConfigError for what is no run file, or one of another version."""
    document = read_document(path)
    kind = _kind(document)
    config = document.get("config", document.get("options"))
    return Run(
        path=path,
        kind=kind,
        provenance=document["provenance"],
        config=config if isinstance(config, dict) else {},
        model=_model(document),
        samples=_bounded(path, _samples(document, kind)),
    )


def read_kind(path: Path, kind: str) -> dict[str, Any]:
    """The whole document of a run file, which must be of that kind. Raises ConfigError."""
    found, document = read_any(path)
    if found != kind:
        raise ConfigError(f"{path}: a run file of kind '{found}', and this command reads kind '{kind}'")
    return document


def read_any(path: Path) -> tuple[str, dict[str, Any]]:
    """(kind, the whole document). Raises ConfigError."""
    document = read_document(path)
    return _kind(document), document


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in a run file of this version, of any kind; its provenance is an object. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror or error}); give a run file, as --json and --out write them"
        ) from error
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path}: larger than {MOST_BYTES >> 20} MiB; no run file is, so it was not read")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a run file, which is one JSON object ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("provenance"), dict):
        raise ConfigError(f"{path}: not a run file: it does not say under 'provenance' where its numbers come from")
    # The scripts' files have neither a format nor a kind.
    found = document.get("format", None if "kind" in document else FORMAT)
    if type(found) is not int or found != FORMAT:
        raise ConfigError(
            f"{path}: a run file of format {found!r}, and this version reads format {FORMAT}; measure again, or "
            f"read it with the version that wrote it (commit {document['provenance'].get('commit') or 'unknown'})"
        )
    return document


def _kind(document: Mapping[str, Any]) -> str:
    """As the file says; for files that do not, by what is in them, or by the script that wrote them."""
    said, results = document.get("kind"), document.get("results")
    if isinstance(said, str):
        return said
    if isinstance(document.get("requests"), list) and "options" in document:
        return "client"
    if isinstance(results, dict) and "servers" in results:
        return "bench serve"
    if isinstance(results, dict) and {"latency", "padding", "memory"} <= results.keys():
        return "tradeoffs"
    command = document["provenance"].get("command")
    first = command[0] if isinstance(command, list) and command else None
    return Path(first).stem if isinstance(first, str) and first.endswith(".py") else "script"


def _model(document: Mapping[str, Any]) -> str | None:
    config, results = document.get("config"), document.get("results")
    servers = _rows(results.get("servers")) if isinstance(results, dict) else []
    named = [_id(server.get("model")) for server in servers] + [_id(document.get("server"))]
    named += [config.get(key) for key in ("model", "random_weights", "shape")] if isinstance(config, dict) else []
    return next((name for name in named if isinstance(name, str)), None)


def _id(model: object) -> object:
    return model.get("id") if isinstance(model, dict) else None


def _samples(document: Mapping[str, Any], kind: str) -> Samples:
    if "samples" in document:
        return _of_names(document["samples"])
    results = document.get("results")
    reader = _READERS.get(kind, _of_script)
    return reader(results)


def _of_servers(results: Any) -> Samples:
    """A value for each round; the first server is the one measured, a second one its baseline."""
    found: Samples = {}
    servers = _rows(results.get("servers")) if isinstance(results, dict) else []
    for name, server in zip(("server", "baseline"), servers, strict=False):
        rounds = [_flat(row.get("measures")) for row in _rows(server.get("rounds"))]
        found[name] = _columns(rounds, _MEASURES)
    return found


_MEASURES = (
    "ttft_ms p50", "tpot_ms p50", "itl_ms p50", "e2e_ms p50", "e2e_ms p95", "tokens_per_s", "requests_per_s",
    "goodput_per_s",
)  # fmt: skip


def _flat(measures: object) -> dict[str, Any]:
    """`{"ttft_ms": {"p50": 1}}` as `{"ttft_ms p50": 1}`."""
    found: dict[str, Any] = {}
    for name, value in measures.items() if isinstance(measures, dict) else ():
        found |= {f"{name} {part}": v for part, v in value.items()} if isinstance(value, dict) else {name: value}
    return found


def _of_script(results: Any) -> Samples:
    """{name: [{quantity: value}, ...]}, {quantity: {name: [values]}}, or rows that a round or repeat numbers."""
    if isinstance(results, list):
        return _of_rounds(_rows(results))
    found: Samples = {}
    for name, value in results.items() if isinstance(results, dict) else ():
        if isinstance(value, list):
            columns = _columns(_rows(value), None)
            found |= {name: columns} if columns else {}
        elif isinstance(value, dict):
            for inner, values in value.items():
                if (numbers := _numbers(values)) is not None:
                    found.setdefault(inner, {})[name] = numbers
    return found


_TURNS = ("round", "repeat")


def _of_rounds(rows: list[dict[str, Any]]) -> Samples:
    """Rows of one name are those that agree in every text they hold."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if any(turn in row for turn in _TURNS):
            name = ", ".join(value for value in row.values() if isinstance(value, str)) or "run"
            groups.setdefault(name, []).append({k: v for k, v in row.items() if k not in _TURNS})
    return {name: _columns(group, None) for name, group in groups.items()}


def _of_names(samples: object) -> Samples:
    found: Samples = {}
    for name, quantities in samples.items() if isinstance(samples, dict) else ():
        for quantity, values in quantities.items() if isinstance(quantities, dict) else ():
            if (numbers := _numbers(values)) is not None:
                found.setdefault(name, {})[quantity] = numbers
    return found


def _none(_results: Any) -> Samples:
    """One measurement of each setting."""
    return {}


_READERS: dict[str, Callable[[Any], Samples]] = {"bench serve": _of_servers, "tradeoffs": _none, "client": _none}


def _columns(rows: list[dict[str, Any]], wanted: Iterable[str] | None) -> dict[str, list[float]]:
    """Quantities that are a number in every row."""
    names = (rows[0] if rows else {}) if wanted is None else wanted
    columns = {name: _numbers([row.get(name) for row in rows]) for name in names}
    return {name: values for name, values in columns.items() if values is not None}


def _rows(value: object) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _numbers(values: object) -> list[float] | None:
    """None for what is not a list of numbers with something in it, 0 or of a size that a measurement can have."""
    if not isinstance(values, list) or not values:
        return None
    if not all(type(v) in (int, float) and (v == 0 or 1 / _LARGEST <= abs(v) <= _LARGEST) for v in values):
        return None
    return [float(v) for v in values]


_LARGEST = 1e100  # the ratio of any two numbers is a float, too


def _bounded(path: Path, samples: Samples) -> Samples:
    most = max((len(values) for quantities in samples.values() for values in quantities.values()), default=0)
    if most > MOST_REPEATS:
        raise ConfigError(f"{path}: {most} repeats of one quantity; at most {MOST_REPEATS} are compared")
    return samples
