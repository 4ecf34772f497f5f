"""Showing: a ledger as tables and sentences in a terminal. Knows accounts; computes nothing but shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ridgeline.bench.duel import compare
from ridgeline.core.plaintext import harmless
from ridgeline.lab.ledger.causes import Account
from ridgeline.lab.ledger.entries import Entry, Step
from ridgeline.lab.ledger.file import Ledger
from ridgeline.lab.ledger.sentences import percent, rate, sentences, size, time

NO_BREAK = "\u00a0"
NOTHING = "-"
HEADINGS = (
    "region", "predicted", "timed", "bytes predicted", "operands", "counted", "MBU", "MFU", "binds",
    "above its floor, and why",
)  # fmt: skip
WORDS = HEADINGS[-2:]
LEAST_WIDTH = 120
"""Characters of a terminal that the whole table needs."""
LEAST_SHARE = 0.005
"""Causes of less than this part of a distance are left out of its row."""
Groups = Callable[[Step], Sequence[tuple[str, Sequence[Entry]]]]
"""The rows of a step's table: a name, and the places that it stands for."""


def by_region(step: Step) -> list[tuple[str, Sequence[Entry]]]:
    return list(step.regions.items())


def by_place(step: Step) -> list[tuple[str, Sequence[Entry]]]:
    return [(entry.place, (entry,)) for entry in step.places]


def show(ledger: Ledger, groups: Groups, console: Console) -> None:
    """Ceilings, then a table and its sentences for every kind of step, then what watching cost."""
    ceilings, compute = ledger.ceilings, ledger.formats.compute
    levels = ", ".join(f"{level.name} {rate(level.read.median, 'B/s')}" for level in ceilings.levels)
    _say(console, f"{ledger.model} on {ceilings.device}")
    _say(
        console,
        f"Ceilings measured: {levels}; {compute} products {rate(ceilings.peak(compute), 'FLOP/s')}; a launch "
        f"{time(ceilings.launch_ns.median)}.",
    )
    for step in ledger.steps:
        console.print()
        for table in tables(step, ledger, groups, console.width):
            console.print(table, highlight=False)
        for sentence in (*sentences(step, ledger.accountant, ledger.spec), watching(step)):
            _say(console, sentence)
    for how in dict.fromkeys(step.counted_how for step in ledger.steps if step.counted_how is not None):
        console.print()
        _say(console, f"Counted: {how}.")
    for reason in dict.fromkeys(step.uncounted for step in ledger.steps if step.uncounted is not None):
        console.print()
        _say(console, f"Nothing is counted: {reason}. `ridgeline doctor` says what this machine offers.")
    if ledger.interrupted:
        _say(console, "Interrupted: the kinds of step that were not finished are missing.")


def tables(step: Step, ledger: Ledger, groups: Groups, width: int) -> list[Table]:
    """One table, or where it would not fit the numbers and the reasons each in one of its own."""
    accountant = ledger.accountant
    rows = [_cells(name, accountant.places(step, entries)) for name, entries in groups(step)]
    summed = _cells("sum", accountant.places(step, step.places))
    rows.append([*summed[:-1], f"{share(step)} of the step measured without regions"])
    rows.append(_cells("step", accountant.step(step)))
    last = len(HEADINGS) - 1
    parts = [range(last + 1)] if width >= LEAST_WIDTH else [range(last), (0, last)]
    return [_table(title(step) if part is parts[0] else None, rows, part) for part in parts]


def _table(heading: str | None, rows: Sequence[Sequence[str]], columns: Sequence[int]) -> Table:
    made = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), title=heading, title_justify="left"
    )
    for at in columns:
        words = at == 0 or HEADINGS[at] in WORDS
        made.add_column(HEADINGS[at], justify="left" if words else "right", no_wrap=at == 0)
    for number, row in enumerate(rows, -len(rows)):
        if number == -2:  # the sum and the step stand apart
            made.add_section()
        made.add_row(*(Text(harmless(row[at])) for at in columns))
    return made


def title(step: Step) -> str:
    if step.phase == "prefill":
        return f"prefill, {step.batch} x {step.context} tokens"
    return f"decode, batch {step.batch}, context {step.context}"


def share(step: Step) -> str:
    """The regions' sum as a part of the step that nobody watched."""
    return f"{step.places_ns / step.step_ns.median * 100:.1f} %"


def watching(step: Step) -> str:
    """What timing regions cost, from paired rounds; with a captured graph also what the graph saves."""
    off, on = zip(*step.rounds, strict=True)
    found = compare(on, off)
    low, middle, high = (f"{(ratio - 1) * 100:+.1f} %" for ratio in (found.low, found.ratio, found.high))
    return (
        f"The regions sum to {share(step)} of the step; timing them changes the step's time by {middle} ({low} to "
        f"{high}, {found.coverage * 100:.0f} % sure, {found.rounds} rounds)."
    )


def _cells(name: str, account: Account) -> list[str]:
    predicted = account.predicted
    cells = [
        name,
        time(predicted.ns) if predicted.ns else NOTHING,
        time(account.timed_ns),
        size(predicted.bytes) if predicted.bytes else NOTHING,
        _maybe(account.operand_bytes),
        _maybe(account.counted_bytes),
        NOTHING if account.mbu is None else percent(account.mbu),
        NOTHING if account.mfu is None else percent(account.mfu),
        predicted.binds or NOTHING,
        _why(account),
    ]
    return [cell.replace(" ", NO_BREAK) for cell in cells[:-2]] + cells[-2:]  # those of WORDS may be broken


def _why(account: Account) -> str:
    if account.below_floor:
        return f"{time(-account.residual_ns)} below: nearer than assumed"
    causes = sorted(account.causes.items(), key=lambda cause: -cause[1])
    shares = [
        f"{name} {percent(ns / account.residual_ns)}".replace(" ", NO_BREAK)
        for name, ns in causes
        if ns / account.residual_ns >= LEAST_SHARE
    ]
    return f"{time(account.residual_ns)}: {', '.join(shares)}" if shares else NOTHING


def _maybe(count_bytes: int | None) -> str:
    return NOTHING if count_bytes is None else size(count_bytes)


def _say(console: Console, text: str) -> None:
    """Names may come from a file that somebody else wrote."""
    console.print(harmless(text), markup=False, highlight=False)
