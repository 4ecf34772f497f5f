"""Tables: measures and ratios as a terminal shows them. Knows numbers; knows no server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from ridgeline.bench.duel import Ratio
from ridgeline.bench.fleet import Load
from ridgeline.bench.measures import QUANTILES, Measures, Spread
from ridgeline.bench.words import number, plural

# Later than this at the 99th percentile, an open loop was not the one that was planned.
LATE_MS = 10.0


SPREADS = ("mean", *QUANTILES, "max")
RATIOS = ("", "ratio", "interval", "reading")


def print_measures(console: Console, m: Measures, load: Load, limits_ms: Mapping[str, float]) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("milliseconds")
    for name in SPREADS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in spread_rows(m):
        table.add_row(*row)
    console.print(table, highlight=False)
    console.print()
    for sentence in sentences(m, limits_ms):
        console.print(sentence, highlight=False)
    for note in notes(m, load):
        console.print(note, highlight=False, soft_wrap=True)


def spreads(m: Measures) -> dict[str, Spread]:
    """What there is of them."""
    named = {"TTFT": m.ttft_ms, "TPOT": m.tpot_ms, "ITL": m.itl_ms, "E2E": m.e2e_ms, "sent late": m.lateness_ms}
    return {name: spread for name, spread in named.items() if spread is not None}


def spread_rows(m: Measures) -> list[tuple[str, ...]]:
    """Under an empty heading and SPREADS."""
    return [(name, *(number(getattr(spread, part), 1) for part in SPREADS)) for name, spread in spreads(m).items()]


def sentences(m: Measures, limits_ms: Mapping[str, float]) -> tuple[str, str]:
    good = ""
    if m.good is not None:
        limits = ", ".join(f"{name} {limit:g} ms" for name, limit in limits_ms.items())
        good = f", {number(m.goodput_per_s, 2)} of them a second within {limits}"
    return (
        f"{number(m.tokens_per_s, 1)} output tokens/s, {number(m.requests_per_s, 2)} requests/s{good}",
        f"{m.answered} of {plural(m.requests, 'request')} answered in {m.wall_s:.2f} s: "
        f"{m.prompt_tokens} prompt and {m.tokens} output tokens",
    )


def notes(m: Measures, load: Load) -> Iterator[str]:
    """What a reader has to know before believing the figures."""
    if m.refused:
        again = f"; it asked for a pause of {m.retry_after_s.p50:g} s" if m.retry_after_s else ""
        yield f"{plural(m.refused, 'request')} refused (429): the server has enough to do{again}."
    for kind, count in m.errors.items():
        yield f"{count} x {kind}"
    if m.answered and not m.counted:
        yield "The server reports no usage: events stand for tokens, and prompt tokens are not known."
    elif m.events and m.tokens > 1.05 * m.events:
        yield f"An event brought {m.tokens / m.events:.2f} tokens on average: ITL is between events, TPOT is by token."
    if m.answered and not m.events:
        yield "The server answers in one piece: there is no first token to see; a limit of ttft is held by the whole."
    if load.lost:
        yield f"{load.lost} of the client processes ended too early: their requests are missing in these figures."
    if load.client_bound:
        yield (
            f"CLIENT-BOUND: a client process used {max(load.cpu_shares):.2f} of a core; its own delays are in these "
            "figures. Take more --client-processes."
        )
    if m.lateness_ms is not None and m.lateness_ms.p99 > LATE_MS:
        yield f"The client sent late (p99 {m.lateness_ms.p99:.0f} ms): the arrivals were not quite the planned ones."


def print_ratios(console: Console, found: Mapping[str, Ratio], left_out: Sequence[str], url: str, against: str) -> None:
    """Ratios with their intervals; never a ratio alone."""
    console.print(compared(url, against), highlight=False)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in RATIOS:
        table.add_column(name, justify="left" if name in ("", "reading") else "right")
    for row in ratio_rows(found):
        table.add_row(*row)
    console.print(table, highlight=False)
    for sentence in ratio_sentences(found, left_out):
        console.print(sentence, highlight=False)


def compared(url: str, against: str) -> str:
    return f"{url} over {against}, median of the rounds' ratios"


def ratio_rows(found: Mapping[str, Ratio]) -> list[tuple[str, ...]]:
    """Under RATIOS."""
    return [(name, f"{r.ratio:.3f}", f"[{r.low:.3f}, {r.high:.3f}]", reading(r)) for name, r in found.items()]


def ratio_sentences(found: Mapping[str, Ratio], left_out: Sequence[str]) -> Iterator[str]:
    if left_out:
        yield f"Not compared, as a round had 0 or none of it: {', '.join(left_out)}."
    one = next(iter(found.values()), None)
    if one is not None:
        yield (
            f"The interval covers the median ratio in {one.coverage * 100:.1f} of 100 such runs "
            f"({one.rounds} rounds, sign test); of several quantities one may differ by chance."
        )


def reading(r: Ratio) -> str:
    if r.drifts:
        return f"the baseline drifts by {abs(r.drift):.3f} of itself, more than they differ: measure again"
    return "differs" if r.tells else "cannot be told from 1"
