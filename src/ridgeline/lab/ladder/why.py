"""Why: one sentence that names what changed from one rung to the next. Knows counted facts; knows no rung and no time.

It says only what was counted, and of that only what points the way the verdict went; where nothing does, it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Facts = Mapping[str, float]

# Counted facts vary from round to round with the arrivals; below this they count as the same.
_SAME = 0.08
_SAME_SHARE = 0.02
_SAME_TTFT = 0.2


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _bytes(value: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{_number(value / size)} {unit}"
    return f"{value:.0f} bytes"


@dataclass(frozen=True, slots=True)
class _Fact:
    """better: +1 where more of it should make tokens faster, -1 where less. said: with {below} and {mine}. shown: a
    value in words. is_share: a part of 1, of which differences count and not ratios."""

    name: str
    better: int
    said: str
    shown: Callable[[float], str]
    is_share: bool = False

    def changed(self, below: Facts, mine: Facts) -> int:
        """+1: it moved to where it should help, -1: to where it should harm, 0: it did not move, or is not known."""
        if self.name not in below or self.name not in mine:
            return 0
        a, b = below[self.name], mine[self.name]
        moved = abs(b - a) > (_SAME_SHARE if self.is_share else _SAME * max(abs(a), abs(b)))
        return 0 if not moved else self.better * (1 if b > a else -1)

    def say(self, below: Facts, mine: Facts) -> str:
        return self.said.format(below=self.shown(below[self.name]), mine=self.shown(mine[self.name]))


# The nearest causes first: a cause that another follows from stands before it.
_FACTS = (
    _Fact("prefix", +1, "the prefix cache found {mine} of the prompt tokens instead of {below}", _share, is_share=True),
    _Fact("padding", -1, "padding went from {below} to {mine} of the computed positions", _share, is_share=True),
    _Fact("positions_a_token", -1, "each new token computes {mine} positions instead of {below}", _number),
    _Fact("rows", +1, "{mine} sequences instead of {below} share one reading of the weights in a step", _number),
    _Fact("steps_a_visit", +1, "a launch makes {mine} steps instead of {below}", _number),
    _Fact("bytes_a_token", -1, "a token should move {mine} instead of {below} (predicted)", _bytes),
)
_MOST = 2


def why(verdict: str, below: Facts, mine: Facts) -> str:
    """A sentence. verdict: pays, costs or undecided here. below, mine: medians of what was counted."""
    beside = _beside(below, mine)
    if not any(fact.name in below and fact.name in mine for fact in _FACTS):
        return f"Nothing is counted inside the rung below, so the counters cannot explain the difference{beside}."
    moved = {sign: [f for f in _FACTS if f.changed(below, mine) == sign] for sign in (1, -1)}
    wanted = {"pays": 1, "costs": -1}.get(verdict)
    if wanted is None:
        told = [*moved[1], *moved[-1]]
        if not told:
            return f"Nothing that is counted changed{beside}."
        return f"What changed did not decide the speed: {_listed(told, below, mine)}{beside}."
    if moved[wanted]:
        return _capital(f"{_listed(moved[wanted], below, mine)}{beside}.")
    against = f", and what changed speaks against it: {_listed(moved[-wanted], below, mine)}" if moved[-wanted] else ""
    return f"The counters do not explain it{against}{beside}."


def _listed(facts: list[_Fact], below: Facts, mine: Facts) -> str:
    return " and ".join(fact.say(below, mine) for fact in facts[:_MOST])


def _beside(below: Facts, mine: Facts) -> str:
    """Of the wait for a first token, which a rung may be for though it makes no more tokens. Behind fewer requests one
    waits less, so only loads of as many requests are compared."""
    if below.get("requests") != mine.get("requests"):
        return ""
    a, b = below.get("ttft_ms"), mine.get("ttft_ms")
    if a is None or b is None or abs(b - a) <= _SAME_TTFT * max(a, b):
        return ""
    return f"; half of the first tokens came within {_number(b)} ms instead of {_number(a)} ms"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
