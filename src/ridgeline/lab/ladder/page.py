"""Ladder page: what a climb says, as the page draws it, as Markdown and on the console. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ridgeline.bench.duel import Ratio
from ridgeline.core.report import Bar, Bars, Report, Section
from ridgeline.lab.ladder.ladder import DRIFT
from ridgeline.lab.ladder.verdict import MARGIN, Line, climbed, lines

Row = Mapping[str, Any]

HEADINGS = (
    "Rung", "Tokens/s", "Against the rung below", "Verdict", "TTFT p50", "Latency p95", "Rows a step",
    "Positions a token", "Padding", "Prefix found", "Bytes a token", "Output",
)  # fmt: skip
UNCOUNTED = {"joules": "energy", "cycles": "cycles", "instructions": "instructions", "cache_misses": "cache misses"}
# Of a token, where the hardware counts them; a column that nothing counted is not shown.
COUNTED = {
    "joules": ("Energy a token", "{:.3g} J", 1.0),
    "instructions": ("Instructions a token", "{:.3g} M", 1e-6),
    "cycles": ("Cycles a token", "{:.3g} M", 1e-6),
    "cache_misses": ("LLC misses x 64 a token", "{:.3g} MB", 64e-6),
}
NOT_KNOWN = "-"


def told(document: Row) -> Report:
    """document: what ladder.json has."""
    shown = lines(document["results"])
    measured = [line for line in shown if line.verdict != "skipped"]
    skipped = [line for line in shown if line.verdict == "skipped"]
    sections = [
        Section(
            title="What each switch gained here",
            question="How many tokens a second does each rung make, and does it pay?",
            figure=Bars("output tokens a second", tuple(map(_bar, measured))),
            readings=(_whole(document["results"]),),
            headings=_headings(measured),
            rows=tuple(_cells(line, measured) for line in measured),
            open_table=True,
        ),
        Section(
            title="Why",
            question="What was counted, from each rung to the next?",
            readings=tuple(f"{line.title} ({line.verdict}): {line.why}" for line in measured),
        ),
    ]
    if skipped:
        rows = tuple((line.title, line.why) for line in skipped)
        question = "Which rungs cannot be climbed here?"
        sections.append(Section("Not climbed", question, headings=("Rung", "Reason"), rows=rows, open_table=True))
    return Report("The ladder", _model(document), sections, _notes(document), _remarks(document))


def markdown(document: Row) -> str:
    """The table, the sentences and what they rest on."""
    shown = lines(document["results"])
    measured = [line for line in shown if line.verdict != "skipped"]
    headings = _headings(measured)
    table = [headings, tuple("---" for _ in headings), *(_cells(line, measured) for line in measured)]
    source = document["provenance"]
    machine = f"{source['cpu']}, {source['cores']} cores; GPUs: {', '.join(source['gpus']) or 'none'}"
    parts = [
        "# The ladder",
        _model(document),
        f"Machine: {machine}. Commit {source['commit'] or 'unknown'}{' with changes' if source['dirty'] else ''}, "
        f"{source['started']}.",
        "\n".join(f"| {' | '.join(map(_escaped, row))} |" for row in table),
        _whole(document["results"]),
        "\n".join(f"- {line.title}: {_escaped(line.why)}" for line in shown),
        *_notes(document),
        *_remarks(document),
    ]
    return "\n\n".join(parts) + "\n"


def show(document: Row, console: Console) -> None:
    """The gains and the sentences, narrow enough for a terminal."""
    shown = lines(document["results"])
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for i, heading in enumerate(HEADINGS[:4]):
        table.add_column(heading, justify="right" if i in (1, 2) else "left", no_wrap=i == 0)
    for line in shown:
        if line.verdict == "skipped":
            table.add_row(line.title, "", "", "skipped")
        else:
            table.add_row(*_cells(line, ())[:4])
    console.print(table, highlight=False)
    console.print()
    for line in shown:
        console.print(f"{line.title}: {line.why}", markup=False, highlight=False)
    console.print()
    console.print(_whole(document["results"]), markup=False, highlight=False)


def _bar(line: Line) -> Bar:
    rate = line.facts.get("tokens_per_s", 0.0)
    gain = "" if line.ratio is None else f" ({line.ratio.ratio:.2f}x)"
    return Bar(line.title, rate, f"{rate:.0f}{gain}", f"{line.title}: {rate:.0f} tokens/s\n{line.why}", line.verdict)


def _headings(measured: Sequence[Line]) -> tuple[str, ...]:
    return (*HEADINGS[:-1], *(COUNTED[key][0] for key in _counted(measured)), HEADINGS[-1])


def _counted(measured: Sequence[Line]) -> list[str]:
    return [key for key in COUNTED if any(key in line.facts for line in measured)]


def _cells(line: Line, measured: Sequence[Line]) -> tuple[str, ...]:
    """measured: all lines, which decide together what columns there are."""
    facts = line.facts

    def cell(name: str, shown: str, factor: float = 1.0) -> str:
        return shown.format(factor * facts[name]) if name in facts else NOT_KNOWN

    return (
        line.title,
        cell("tokens_per_s", "{:.1f}"),
        NOT_KNOWN if line.ratio is None else _interval(line.ratio),
        line.verdict,
        cell("ttft_ms", "{:.0f} ms"),
        cell("latency_p95_ms", "{:.0f} ms"),
        cell("rows", "{:.2f}"),
        cell("positions_a_token", "{:.2f}"),
        cell("padding", "{:.0f} %", 100),
        cell("prefix", "{:.0f} %", 100),
        cell("bytes_a_token", "{:.2f} MB", 1e-6),
        *(cell(key, *COUNTED[key][1:]) for key in _counted(measured)),
        line.output,
    )


def _interval(ratio: Ratio) -> str:
    return f"{ratio.ratio:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _whole(results: Row) -> str:
    ratio = climbed(results)
    names = [rung["title"] for rung in results["rungs"] if rung["skipped"] is None]
    if ratio is None:
        return f"{len(results['rounds'])} rounds of {len(names)} rungs are too little to say what the ladder gained."
    return f"From '{names[0]}' to '{names[-1]}': {_interval(ratio)} times the tokens a second."


def _model(document: Row) -> str:
    sizes, load, rounds = (document["results"][name] for name in ("sizes", "load", "rounds"))
    many, shared = sizes["block"] * sizes["blocks"], sizes["shared"]
    fewest = min((rung["requests"] for rung in document["results"]["rungs"] if rung["requests"]), default=many)
    return (
        f"Model: {document['config']['model']}. {len(rounds)} rounds; a load has {many} requests with prompts of "
        f"{sizes['prompt'][0]} to {sizes['prompt'][1]} tokens, of which those above {shared} begin with the same "
        f"{shared}, and {sizes['new'][0]} to {sizes['new'][1]} new tokens; rungs of one request at a time serve the "
        f"first of them, as many as they have time for ({fewest} at least). On average a request comes every "
        f"{load['gap_ns'] / 1e6:.1f} ms; one alone takes {load['alone_ns'] / 1e6:.0f} ms."
    )


def _notes(document: Row) -> list[str]:
    rounds = document["results"]["rounds"]
    notes = [
        "Each rung keeps the switches of those below it. All serve the same requests in a round, in an order drawn for "
        "the round; a gain is the median of the rounds' ratios of tokens/s, with "
        + (f"the {_coverage(document)} interval of the sign test" if _coverage(document) else "its interval")
        + f". It pays or costs only where the whole interval is beyond {MARGIN:.0%}.",
        "Bytes a token are predicted from the rows, positions and cache blocks of every step, not counted.",
    ]
    if document["results"]["quality"]:
        notes.append(
            "Quality of a lossy rung: its perplexity on a text that ships with Ridgeline (in brackets the exact one), "
            "and at how many places of it both hold the same token for the likeliest."
        )
    uncounted = document["results"].get("uncounted", {})
    if uncounted:
        what = ", ".join(UNCOUNTED[key] for key in uncounted)
        whys = "; ".join(dict.fromkeys(uncounted.values()))
        notes.append(f"Not counted by the hardware here: {what} ({whys}).")
    wild = [turn for turn in rounds if turn["drift"] > DRIFT]
    if wild:
        notes.append(
            f"The machine drifted: in {len(wild)} of {len(rounds)} rounds the same work took over {DRIFT:.0%} more or "
            "less in the second half than in the first; they are kept because repeating them did not help."
        )
    if not document["finished"]:
        notes.append("This run is not finished: the same command goes on with it.")
    return notes


def _coverage(document: Row) -> str:
    ratio = climbed(document["results"])
    return "" if ratio is None else f"{100 * ratio.coverage:.1f} %"


def _remarks(document: Row) -> list[str]:
    voided = len(document["results"]["voided"])
    return [f"Rounds that were repeated because the machine drifted: {voided}."]


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
