"""Words: numbers as people read them. Knows no request."""

from __future__ import annotations

from collections.abc import Sequence


def human_bytes(count: float) -> str:
    """`512 B`, `1.5 KiB`, `72.0 MiB`."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def percent(part: float, whole: float) -> str:
    """`31 %`; 0 % of nothing."""
    return f"{100 * part / whole:.0f} %" if whole else "0 %"


def listed(items: Sequence[object]) -> str:
    """`8`, `8 and 8`, `6, 8 and 2`."""
    words = [str(item) for item in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def plural(count: int, noun: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def number(value: float | None, digits: int = 0) -> str:
    """A dash for what is not known."""
    return "-" if value is None else f"{value:.{digits}f}"
