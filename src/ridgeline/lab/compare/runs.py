"""Compare: two run files of one kind, quantity by quantity. Knows what makes a comparison void; knows no format.

The repeats of two files were measured at different times, so they are not paired: what the machine did in between is
part of every difference. Two configurations are better measured in turn (contest.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ridgeline.bench.order import LEAST_ROUNDS
from ridgeline.core.errors import ConfigError
from ridgeline.core.plaintext import harmless
from ridgeline.lab.compare.ranks import Factor, factor
from ridgeline.lab.runfiles import Run

MOST_DIFFERENCES = 12
_MACHINE = ("cpu", "cores", "gpus")


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity, B over A. factor: None where the comparison is void; `reading` and then `reason` say why."""

    name: str
    quantity: str
    factor: Factor | None
    reading: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """notes: what differs between the runs besides their numbers. rows: every quantity that both have."""

    notes: tuple[str, ...]
    rows: tuple[Row, ...]


def compare(a: Run, b: Run, anyway: bool) -> Comparison:
    """anyway: compare runs of different machines too. Raises ConfigError where nothing can be said at all."""
    if a.kind != b.kind:
        raise ConfigError(
            f"{a.path} is a run file of the kind '{a.kind}' and {b.path} of '{b.kind}'; only two of one kind compare"
        )
    machines = tuple(_machines(a, b))
    if machines and not anyway:
        raise ConfigError(
            f"the two runs are of different machines ({'; '.join(machines)}), and only ratios within one machine mean "
            "anything; measure both on one, or say --anyway"
        )
    for run in (a, b):
        if not run.samples:
            raise ConfigError(
                f"{run.path}: a run file of the kind '{run.kind}' with no repeats in it, so nothing can be told from "
                f"chance; measure with at least {LEAST_ROUNDS} repeats, or give `ridgeline compare` two configurations"
            )
    rows = tuple(_rows(a, b))
    if not rows:
        raise ConfigError(f"{a.path} and {b.path} have no quantity in common: {_names(a)} against {_names(b)}")
    if all(row.factor is None for row in rows):
        first = rows[0]
        raise ConfigError(
            f"nothing can be compared; {first.quantity} of {first.name} is {first.reading}: {first.reason}"
        )
    return Comparison((*(f"another machine: {change}" for change in machines), *_notes(a, b)), rows)


def _names(run: Run) -> str:
    return ", ".join(list(run.samples)[:MOST_DIFFERENCES])


def _rows(a: Run, b: Run) -> Iterator[Row]:
    for name in a.samples:
        for quantity in a.samples[name]:
            values = b.samples.get(name, {}).get(quantity)
            if values is not None:
                yield _row(name, quantity, values, a.samples[name][quantity])


def _row(name: str, quantity: str, values: list[float], baseline: list[float]) -> Row:
    if min(*values, *baseline) <= 0:
        return Row(name, quantity, None, "void: 0 or below", _NO_RATIO)
    if min(len(values), len(baseline)) < LEAST_ROUNDS:
        return Row(name, quantity, None, f"void: {len(baseline)} and {len(values)} repeats", _TOO_FEW)
    found = factor(values, baseline)
    if not found.tells:
        return Row(name, quantity, found, "cannot be told from 1")
    if found.drifts:
        which, by = ("A", found.baseline_drift) if abs(found.baseline_drift) > abs(found.drift) else ("B", found.drift)
        return Row(name, quantity, None, f"void: {which} drifts by {abs(by):.3f}", DRIFTS)
    return Row(name, quantity, found, "B is higher" if found.ratio > 1 else "B is lower")


_NO_RATIO = "a repeat is 0 or below, and there is no ratio to that"
_TOO_FEW = f"too few to tell a difference from chance; measure at least {LEAST_ROUNDS} on each side"
DRIFTS = (
    "from first to last it moved by that part of its median, which is more than the two differ; measure again while "
    "nothing else runs"
)


def _machines(a: Run, b: Run) -> Iterator[str]:
    """What both say and say differently: older files say less."""
    both = [key for key in _MACHINE if key in a.provenance and key in b.provenance]
    yield from _changes("", *({key: run.provenance[key] for key in both} for run in (a, b)))


def _notes(a: Run, b: Run) -> Iterator[str]:
    one, other = a.provenance, b.provenance
    if a.model != b.model:
        yield f"model: {a.model} -> {b.model}; the ratios are of different work"
    for what in ("commit", "python", "system"):
        yield from _changes("", {what: one.get(what)}, {what: other.get(what)})
    dirty = [name for name, about in (("A", one), ("B", other)) if about.get("dirty")]
    if dirty:
        yield f"measured with changes that no commit has: {' and '.join(dirty)}"
    yield from _changes("library ", _mapping(one.get("libraries")), _mapping(other.get("libraries")))
    changed = list(_changes("config ", _flat(a.config), _flat(b.config)))
    yield from changed[:MOST_DIFFERENCES]
    if len(changed) > MOST_DIFFERENCES:
        yield f"config: {len(changed) - MOST_DIFFERENCES} more differences"
    missing = [name for name in (*a.samples, *b.samples) if name not in a.samples or name not in b.samples]
    if missing:
        yield f"in one of the two only: {', '.join(missing)}"
    if one.get("started") != other.get("started"):
        yield (
            f"measured at different times ({one.get('started')} and {other.get('started')}): what the machine did in "
            "between is part of every difference"
        )


def _changes(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys((*one, *other)):
        if one.get(name) != other.get(name):
            yield f"{what}{name} {_shown(one.get(name))} -> {_shown(other.get(name))}"


def _shown(value: object) -> str:
    text = "(unknown)" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects by dotted names; two levels are enough to point at a difference."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        inner = isinstance(value, dict) and not prefix
        found |= _flat(value, f"{name}.") if inner else {f"{prefix}{name}": value}
    return found


def show(console: Console, found: Comparison, a: Run, b: Run) -> None:
    """Every ratio with its interval, or the reason why there is none; never a ratio alone."""
    for label, run in (("A", a), ("B", b)):
        console.print(harmless(f"{label}: {run.path}"), markup=False, highlight=False, soft_wrap=True)
    for note in found.notes:
        console.print(harmless(f"- {note}"), markup=False, highlight=False, soft_wrap=True)
    console.print()
    console.print(_table(found.rows), markup=False, highlight=False)
    for reason in dict.fromkeys(row.reason for row in found.rows if row.reason):
        console.print(f"void: {reason}.", highlight=False, soft_wrap=True)
    coverage = min(row.factor.coverage for row in found.rows if row.factor is not None)
    console.print(
        f"\nThe intervals hold in {coverage * 100:.1f} of 100 such pairs of runs or more (Hodges-Lehmann, Mann-Whitney "
        f"test); of {len(found.rows)} quantities some may differ by chance.",
        highlight=False, style="dim", soft_wrap=True,
    )  # fmt: skip


def _table(rows: tuple[Row, ...]) -> Table:
    """A name heads its quantities, because both in one line are wider than many terminals."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("", "B / A", "interval", "repeats", "reading"):
        table.add_column(heading, justify="left" if heading in ("", "reading") else "right", no_wrap=heading != "")
    name = None
    for row in rows:
        if row.name != name:
            name = row.name
            table.add_row(harmless(name))
        table.add_row(f"  {harmless(row.quantity)}", *_cells(row.factor), row.reading)
    return table


def _cells(f: Factor | None) -> tuple[str, str, str]:
    if f is None:
        return "-", "-", "-"
    return f"{f.ratio:.3f}", f"[{f.low:.3f}, {f.high:.3f}]", f"{f.baseline_repeats}, {f.repeats}"


def results(found: Comparison) -> dict[str, Any]:
    return {
        "notes": list(found.notes),
        "rows": [asdict(row) for row in found.rows],
    }
