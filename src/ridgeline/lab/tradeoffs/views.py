"""Views: each trade-off as a table, a figure and a sentence, all from the same rows. Knows no server and no page.

A sentence says what its numbers say; nothing in it is known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ridgeline.bench.words import human_bytes
from ridgeline.core.report import Lines
from ridgeline.lab.tradeoffs import figures
from ridgeline.lab.tradeoffs.grid import MIDDLE_WINDOW_MS, WINDOWED

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    heading: str
    show: Callable[[Row], str]


@dataclass(frozen=True, slots=True)
class View:
    """rows: of a run's results, those that the view is about. reading, figure: of at least one row."""

    key: str
    title: str
    question: str
    columns: tuple[Column, ...]
    rows: Callable[[Row], list[Row]]
    reading: Callable[[Sequence[Row]], str]
    figure: Callable[[Sequence[Row]], Lines]


def _number(name: str, digits: int) -> Callable[[Row], str]:
    return lambda row: "-" if row[name] is None else f"{row[name]:.{digits}f}"


def _size(name: str) -> Callable[[Row], str]:
    return lambda row: "-" if row[name] is None else human_bytes(row[name])


def _policy_rows(results: Row) -> list[Row]:
    return [r for r in _usable(results) if r["window_ms"] in (None, MIDDLE_WINDOW_MS)]


def _window_rows(results: Row) -> list[Row]:
    return [r for r in _usable(results) if r["batching"] == WINDOWED]


def _usable(results: Row) -> list[Row]:
    return [r for r in results["latency"] if r["tokens_per_s"] and r["e2e_p50_ms"]]


def _policy_reading(rows: Sequence[Row]) -> str:
    most = max(rows, key=lambda r: r["tokens_per_s"])
    quickest = min(rows, key=lambda r: r["e2e_p50_ms"])
    told = (
        f"Most tokens: {_at(most)} with {most['tokens_per_s']:.0f} tokens/s at a median latency of "
        f"{most['e2e_p50_ms']:.0f} ms. Shortest wait: {_at(quickest)} with {quickest['e2e_p50_ms']:.0f} ms at "
        f"{quickest['tokens_per_s']:.0f} tokens/s"
    )
    if most is quickest:
        return f"Both the most tokens and the shortest wait: {_at(most)}."
    return (
        f"{told}; that is {most['tokens_per_s'] / quickest['tokens_per_s']:.1f} times the tokens for "
        f"{most['e2e_p50_ms'] / quickest['e2e_p50_ms']:.1f} times the latency."
    )


def _at(row: Row) -> str:
    return f"{row['setting']} at {row['rate_per_s']:.1f} requests/s"


def _window_reading(rows: Sequence[Row]) -> str:
    """The smallest and the largest window at the lowest rate, and at the highest that both were tried with."""
    limit = rows[0]["limit"]
    windows = sorted({r["window_ms"] for r in rows if r["limit"] == limit})
    short, long = (
        {r["rate_per_s"]: r for r in rows if r["limit"] == limit and r["window_ms"] == w}
        for w in (windows[0], windows[-1])
    )
    rates = sorted(short.keys() & long.keys())
    if len(windows) < 2 or not rates:
        return "Fewer than two windows were measured at one rate, so they cannot be compared."
    parts = []
    for rate in dict.fromkeys((rates[0], rates[-1])):
        a, b = short[rate], long[rate]
        parts.append(
            f"at {rate:.1f} requests/s a window of {windows[-1]} ms has a median latency of {b['e2e_p50_ms']:.0f} ms "
            f"against {a['e2e_p50_ms']:.0f} ms with {windows[0]} ms, and {b['tokens_per_s']:.0f} against "
            f"{a['tokens_per_s']:.0f} tokens/s"
        )
    text = "; ".join(parts)
    return f"With at most {limit} in a batch, {text}."


def _padding_reading(rows: Sequence[Row]) -> str:
    low, high = min(rows, key=lambda r: r["spread"]), max(rows, key=lambda r: r["spread"])
    return (
        f"Prompts that deviate by {low['prompt_deviation']:.1f} tokens from their mean of {low['prompt_mean']:.0f} "
        f"waste {low['wasted'] * 100:.0f} of 100 computed positions, those that deviate by "
        f"{high['prompt_deviation']:.1f} from {high['prompt_mean']:.0f} waste {high['wasted'] * 100:.0f}."
    )


def _memory_reading(rows: Sequence[Row]) -> str:
    """Of the memory that was planned: a GPU's where the model is on one, otherwise the processes' own."""
    first, last = min(rows, key=lambda r: r["batch"]), max(rows, key=lambda r: r["batch"])
    (ready, loaded), planned = figures.measured_bytes(last), last["workspace_bytes"] + last["kv_bytes"]
    begun = figures.measured_bytes(first)[1]
    if ready is None or loaded is None or begun is None:
        return (
            f"With {last['batch']} at once {human_bytes(planned)} were planned on the GPU for workspace and cache; "
            "what was taken there is not known, as the driver does not tell what these processes hold."
        )
    told = (
        f"With {last['batch']} at once the batch took {_signed(loaded - ready)} on top of the waiting server, "
        f"{(loaded - ready) / planned:.2f} of the {human_bytes(planned)} planned for workspace and cache"
    )
    if last is first:
        return f"{told}."
    return (
        f"{told}. From {first['batch']} to {last['batch']} the processes grew by {_signed(loaded - begun)}, "
        f"the planned cache by {_signed(last['kv_bytes'] - first['kv_bytes'])}."
    )


_LATENCY = (
    Column("setting", lambda r: str(r["setting"])),
    Column("req/s asked", _number("rate_per_s", 1)),
    Column("req/s done", _number("requests_per_s", 1)),
    Column("tok/s", _number("tokens_per_s", 0)),
    Column("TTFT ms p50", _number("ttft_p50_ms", 0)),
    Column("TPOT ms p50", _number("tpot_p50_ms", 1)),
    Column("E2E ms p50", _number("e2e_p50_ms", 0)),
    Column("E2E ms p95", _number("e2e_p95_ms", 0)),
    Column("rows a step", _number("rows_a_step", 1)),
)

VIEWS = (
    View(
        "policies",
        "Latency against throughput: the policies",
        "Who may join a batch, and when? Each point is one request rate; rates rise along a line.",
        _LATENCY,
        _policy_rows,
        _policy_reading,
        lambda rows: figures.latency(rows, lambda r: str(r["setting"])),
    ),
    View(
        "windows",
        "Latency against throughput: the window of dynamic batching",
        "How long should the first request of a batch wait for company? Each point is one request rate.",
        _LATENCY,
        _window_rows,
        _window_reading,
        lambda rows: figures.latency(rows, lambda r: f"{r['window_ms']} ms, max {r['limit']}"),
    ),
    View(
        "padding",
        "Padding waste against the spread of prompt lengths",
        "Rows of a padded batch are all as long as the longest. Dynamic batching, padded packing.",
        (
            Column("prompt tokens", lambda r: f"{r['asked_low']} to {r['asked_high']}"),
            Column("mean", _number("prompt_mean", 1)),
            Column("std dev", _number("prompt_deviation", 1)),
            Column("batches", _number("batches", 0)),
            Column("rows a batch", _number("rows_a_batch", 1)),
            Column("positions", _number("positions", 0)),
            Column("padding", _number("padding", 0)),
            Column("wasted %", lambda r: f"{r['wasted'] * 100:.1f}"),
        ),
        lambda results: list(results["padding"]),
        _padding_reading,
        figures.padding,
    ),
    View(
        "memory",
        "Memory against batch size: measured and planned",
        "Each server was planned for that many sequences at once, and then ran them. "
        "Measured is the memory of its processes, the program and its libraries included: resident on the host, and on "
        "a GPU as the driver tells it.",
        (
            Column("at once", _number("batch", 0)),
            Column("plan: weights", _size("weights_bytes")),
            Column("plan: work space", _size("workspace_bytes")),
            Column("plan: KV", _size("kv_bytes")),
            Column("when ready", _size("ready_bytes")),
            Column("after batch", _size("loaded_bytes")),
            Column("grown", lambda r: _signed(r["loaded_bytes"] - r["ready_bytes"])),
            Column("GPU: ready", _size("ready_gpu_bytes")),
            Column("GPU: after", _size("gpu_bytes")),
        ),
        lambda results: list(results["memory"]),
        _memory_reading,
        figures.memory,
    ),
)


def _signed(count: int) -> str:
    return ("-" if count < 0 else "") + human_bytes(abs(count))
