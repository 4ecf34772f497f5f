"""Ledger files: a ledger and all that its numbers depend on, as one JSON object. Knows no measurement and no table.

{"format": 1, "kind": "ledger", "provenance": {...}, "ceilings": {...},
 "config": {"model", "spec", "formats", "batches", "context", "steps", "rounds", "prefill_tokens"},
 "interrupted": false, "results": [a step, as entries.py has it, ...]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ridgeline.core.ceilings import Ceilings, from_json, to_json
from ridgeline.core.cost import Formats
from ridgeline.core.errors import ConfigError
from ridgeline.core.floor import LAUNCH
from ridgeline.core.spec import ModelSpec
from ridgeline.lab.ledger.causes import Accountant
from ridgeline.lab.ledger.entries import Step, formats_from_json, step_from_json, step_to_json
from ridgeline.lab.runfiles import read_kind

FORMAT, KIND = 1, "ledger"
_MOST_LAYERS, _MOST = 10_000, 1 << 31
_SIZES = {"layers": _MOST_LAYERS} | dict.fromkeys(("d_model", "heads", "d_inner", "vocab", "max_positions"), _MOST)


@dataclass(frozen=True, slots=True)
class Ledger:
    """config: what was asked for, beside model, spec and formats."""

    provenance: Mapping[str, Any]
    model: str
    spec: ModelSpec
    formats: Formats
    config: Mapping[str, Any]
    ceilings: Ceilings
    steps: Sequence[Step]
    interrupted: bool = False

    @property
    def accountant(self) -> Accountant:
        return Accountant(self.ceilings, self.formats)


def to_document(ledger: Ledger) -> dict[str, Any]:
    about = {"model": ledger.model, "spec": asdict(ledger.spec), "formats": asdict(ledger.formats)}
    return {
        "format": FORMAT,
        "kind": KIND,
        "provenance": dict(ledger.provenance),
        "config": dict(ledger.config) | about,
        "ceilings": to_json(ledger.ceilings),
        "interrupted": ledger.interrupted,
        "results": [step_to_json(step) for step in ledger.steps],
    }


def from_document(source: str, document: Any) -> Ledger:
    """source: what errors call it. Raises ConfigError for anything that `to_document` would not have written."""
    if not isinstance(document, dict):
        raise ConfigError(f"{source}: not a run file; `ridgeline ledger --json FILE` writes one")
    found = document.get("format"), document.get("kind")
    if found != (FORMAT, KIND):
        raise ConfigError(
            f"{source}: a run file of format {found[0]!r} and kind {found[1]!r}; this command reads format {FORMAT} "
            f"and kind '{KIND}', which `ridgeline ledger --json FILE` writes"
        )
    try:
        config = dict(document["config"])
        ledger = Ledger(
            provenance=dict(document["provenance"]),
            model=str(config.pop("model")),
            spec=_spec(config.pop("spec")),
            formats=formats_from_json(config.pop("formats")),
            config=config,
            ceilings=from_json(f"{source}, ceilings", document["ceilings"]),
            steps=tuple(map(step_from_json, document["results"])),
            interrupted=bool(document["interrupted"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{source}: not a ledger's run file ({error!r}); measure it again") from error
    ceilings = ledger.ceilings
    known = {"", LAUNCH, *(level.name for level in ceilings.levels), *(f"matrix {name}" for name in ceilings.matrix)}
    needed = {f"matrix {ledger.formats.compute}"} | {e.predicted.binds for step in ledger.steps for e in step.places}
    if missing := needed - known:
        raise ConfigError(f"{source}: its ceilings have no {', '.join(sorted(missing))}; measure it again")
    return ledger


def read_ledger(path: Path) -> Ledger:
    """Raises ConfigError."""
    return from_document(str(path), read_kind(path, KIND))


def _spec(item: Mapping[str, Any]) -> ModelSpec:
    spec = ModelSpec(**item)
    for name, most in _SIZES.items():
        value = getattr(spec, name)
        if type(value) is not int or not 0 < value <= most:
            raise ValueError(f"{name} {value!r}")
    return spec
