"""Contest view: what a contest of two configurations says, on the screen and as a run file. Knows no engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from ridgeline.bench.duel import Ratio
from ridgeline.bench.order import LEAST_ROUNDS
from ridgeline.bench.words import plural
from ridgeline.core.plaintext import harmless
from ridgeline.lab.compare.contest import SIDES, Result, Work
from ridgeline.lab.compare.runs import DRIFTS
from ridgeline.lab.runfiles import FORMAT

if TYPE_CHECKING:
    from ridgeline.build import EngineOrder


def show(console: Console, result: Result, a: str, b: str) -> None:
    """Medians, and every ratio with its interval; what the tokens say."""
    for side, name in zip(SIDES, (a, b), strict=True):
        console.print(harmless(f"{side}: {name}"), markup=False, highlight=False, soft_wrap=True)
    if result.interrupted:
        console.print(f"Interrupted after {plural(result.rounds, 'whole round')}.", highlight=False)
    if not result.rounds:
        return
    found = result.ratios()
    console.print()
    console.print(_table(result, found), highlight=False)
    if any(is_void(ratio) for ratio in found.values()):
        console.print(f"void: {DRIFTS}.", highlight=False, soft_wrap=True)
    console.print()
    one = next(iter(found.values()), None)
    if one is None:
        text = f"Medians of {plural(result.rounds, 'round')}; a ratio needs at least {LEAST_ROUNDS}."
    else:
        text = (
            f"Medians of {one.rounds} rounds in turn; the interval covers the median of the rounds' ratios in "
            f"{one.coverage * 100:.1f} of 100 such runs (sign test)."
        )
    console.print(text, highlight=False, style="dim", soft_wrap=True)
    console.print(tokens_told(result), highlight=False, soft_wrap=True)


def _table(result: Result, found: Mapping[str, Ratio]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("", "A", "B", "B / A", "interval", "reading"):
        table.add_column(heading, justify="left" if heading in ("", "reading") else "right", no_wrap=True)
    for name, values in result.samples["A"].items():
        medians = (f"{median(side):.1f}" for side in (values, result.samples["B"][name]))
        table.add_row(name, *medians, *(_told(found[name]) if name in found else ("-", "-", "")))
    return table


def is_void(r: Ratio) -> bool:
    """Whether a difference seems to be there, while the baseline moved by more than that."""
    return r.tells and r.drifts


def _told(r: Ratio) -> tuple[str, str, str]:
    if is_void(r):
        return "-", "-", f"void: A drifts by {abs(r.drift):.3f}"
    reading = "cannot be told from 1" if not r.tells else "B is higher" if r.ratio > 1 else "B is lower"
    return f"{r.ratio:.3f}", f"[{r.low:.3f}, {r.high:.3f}]", reading


def tokens_told(result: Result) -> str:
    """Whether both gave the same tokens, and how near to a tie they were where they did not."""
    whole = plural(result.requests, "request")
    if not result.parted:
        return f"Output tokens: the same in all of {whole}."
    text = f"Output tokens: they differ in {len(result.parted)} of {whole}"
    gaps = [one.gap for one in result.parted if one.gap is not None]
    if not gaps:
        return f"{text}."
    return (
        f"{text}; where they part first, A holds the two tokens {median(gaps):.2g} nats apart (median of {len(gaps)}; "
        f"at most {max(gaps):.2g}). A step of the number format is a tie that rounding decides (about 0.06 "
        "in bfloat16, 1e-5 in float32); more is another computation."
    )


def document(
    about: Mapping[str, Any],
    result: Result,
    names: tuple[str, str],
    orders: tuple[EngineOrder, EngineOrder],
    work: Work,
) -> dict[str, Any]:
    """The run file. Its samples compare with those of another one."""
    sides = {
        side: {
            "given": name,
            "model": order.name,
            "options": {part: asdict(getattr(order.config, part)) for part in _PARTS},
        }
        for side, name, order in zip(SIDES, names, orders, strict=True)
    }
    return {
        "format": FORMAT,
        "kind": "compare",
        "provenance": dict(about),
        "config": {"model": orders[0].name, "work": asdict(work), **sides},
        "interrupted": result.interrupted,
        "samples": result.samples,
        "results": {
            "ratios": {name: asdict(ratio) for name, ratio in result.ratios().items()},
            "requests": result.requests,
            "parted": [asdict(one) for one in result.parted],
        },
    }


_PARTS = ("model", "batching", "limits")
