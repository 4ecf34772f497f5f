"""The switches that must not change a token: their values, which exclude each other, and sets that cover all pairs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from ridgeline.menu import MENU

Row = dict[str, Any]
Value = tuple[str, Any]

SWITCHES: dict[str, tuple[Any, ...]] = {
    "batching": tuple(MENU["batching"]),
    "packing": tuple(MENU["packing"]),
    "kv_cache": tuple(MENU["kv_cache"]),
    "attention": ("reference", "paged", "auto"),
    "chunked_prefill": (True, False),
    "prefix_cache": (True, False),
    "launches_in_flight": (1, 2, 3),
    "max_steps_per_visit": (1, 4),
    "block_size": (1, 3, 16),
    "graphs": ("eager", "graph"),  # recorded plays native code alone: tests/runner/test_recorded.py
    "determinism": tuple(MENU["determinism"]),
}

_WHOLE = [(("batching", name), ("chunked_prefill", True)) for name in ("one", "static", "dynamic")]
_UNCACHED = [
    (("kv_cache", "none"), other)
    for other in (("graphs", "graph"), ("chunked_prefill", True), ("prefix_cache", True), ("max_steps_per_visit", 4))
]
_DEPENDENT = [(("determinism", "batch"), ("attention", name)) for name in ("reference", "paged")]
_DEPENDENT += [(("determinism", level), ("graphs", "graph")) for level in ("run", "batch")]
IMPOSSIBLE: set[frozenset[Value]] = {frozenset(pair) for pair in _WHOLE + _UNCACHED + _DEPENDENT}


def pairs() -> list[frozenset[Value]]:
    """Two values of two switches, in every way."""
    return [
        frozenset({(a, left), (b, right)})
        for a, b in combinations(SWITCHES, 2)
        for left in SWITCHES[a]
        for right in SWITCHES[b]
    ]


def covering() -> Iterator[Row]:
    """Full rows of values such that every possible pair is in one of them; greedy, so not the fewest."""
    left = [pair for pair in pairs() if pair not in IMPOSSIBLE]
    while left:
        row: Row = dict(left[0])
        for switch, values in SWITCHES.items():
            if switch not in row:
                row[switch] = max(
                    (value for value in values if not excluded(row | {switch: value})),
                    key=lambda value: sum(pair <= set((row | {switch: value}).items()) for pair in left),
                )
        inside = set(row.items())
        left = [pair for pair in left if not pair <= inside]
        yield {switch: row[switch] for switch in SWITCHES}


def excluded(row: Row) -> bool:
    """Whether it has an impossible pair in it."""
    return any(pair <= set(row.items()) for pair in IMPOSSIBLE)
