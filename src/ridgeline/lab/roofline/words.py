"""Roofwords: what a roofline says, in sentences made from its numbers. Knows points and roofs; draws nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ridgeline.bench.words import human_bytes, listed
from ridgeline.lab.ledger.entries import MATRIX_REGIONS
from ridgeline.lab.roofline.roofs import Point, Roofline

_WORTH_A_WORD = 0.05  # of a step's time: what takes less is not worth being named as far from its roof


def ridge_words(roofline: Roofline) -> str:
    """What the ridge point means."""
    at = amount(roofline.ridge[0])
    return (
        f"ridge: {at} FLOP/byte. What does less arithmetic for a byte from memory waits for memory, "
        "what does more waits for the multipliers"
    )


def readings(roofline: Roofline) -> tuple[str, ...]:
    said = [
        *_decode(roofline),
        *_crossings(roofline),
        *(_against_ridge(roofline, point) for point in roofline.steps if point.phase == "prefill"),
        _reached(roofline),
        _furthest(roofline),
    ]
    return tuple(sentence for sentence in said if sentence)


def warnings(roofline: Roofline) -> tuple[str, ...]:
    """Where the model fits the cache."""
    memory = roofline.ceilings.memory
    near = [point for point in roofline.steps if roofline.level(point) is not memory]
    if not near:
        return ()
    largest = max(near, key=roofline.streamed_bytes)
    which = "any step here" if len(near) == len(roofline.steps) else f"these steps ({_named(near)})"
    size, place = human_bytes(roofline.streamed_bytes(largest)), roofline.level(largest).name
    return (
        f"Conclusions about memory do not hold: all that {which} reads of weights and cache ({size} at most) stays in "
        f"{place}, so it comes from there. A larger model would have other bottlenecks.",
    )


def amount(value: float) -> str:
    """Two digits, or a whole number from ten on."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.95 else f"{value:.2g}"


def _decode(roofline: Roofline) -> list[str]:
    """The smallest and the largest batch."""
    found = roofline.decode
    return [_against_ridge(roofline, point) for point in dict.fromkeys((*found[:1], *found[-1:]))]


def _against_ridge(roofline: Roofline, point: Point) -> str:
    level, ridge = roofline.level(point), roofline.ridge_of(point)
    what = (
        f"At batch {point.batch} a decode step"
        if point.phase == "decode"
        else f"A prompt of {point.tokens} tokens computed at once"
    )
    below = point.intensity < ridge
    times = f"{amount(ridge / point.intensity)} times below" if below else f"{amount(point.intensity / ridge)} times"
    binds = level.name if below else "arithmetic"
    # Parts of a step can stand on the other side of the ridge than their sum.
    expected = (level.name, f"matrix {roofline.compute}")[not below]
    but = "" if point.binds == expected else f", though the largest part of its floor is set by {point.binds}"
    return (
        f"{what} does {amount(point.intensity)} FLOP a byte, {times} the ridge of {amount(ridge)} "
        f"({roofline.compute}, {level.name}): {binds} binds{but}."
    )


def _crossings(roofline: Roofline) -> list[str]:
    """From which batch on arithmetic binds: the step, and its matrix products, whose weights serve all sequences."""
    found = roofline.decode
    if len(found) < 2:
        return []
    said = []
    crossed = next((point.batch for point in found if point.intensity >= roofline.ridge_of(point)), None)
    if crossed is None:
        said.append(f"No batch measured here, up to {found[-1].batch}, takes a whole step over its ridge")
    else:
        said.append(f"From batch {crossed} on a whole step is over its ridge")
    matrix = [_intensity(_at(roofline, point, MATRIX_REGIONS)) for point in found]
    over = [point.batch for point, value in zip(found, matrix, strict=True) if value >= roofline.ridge_of(point)]
    said.append(
        f"its matrix products alone, which read their weights once for all sequences, rise from {amount(matrix[0])} to "
        f"{amount(matrix[-1])} FLOP a byte and {f'are over it from batch {over[0]} on' if over else 'stay below it'}"
    )
    attention = [_intensity(_at(roofline, point, ("attention",))) for point in found]
    if all(attention):
        ends = list(dict.fromkeys(map(amount, (min(attention), max(attention)))))
        said.append(f"attention stays at {' to '.join(ends)}, because every sequence reads a cache of its own")
    return [f"{'; '.join(said)}."]


def _reached(roofline: Roofline) -> str:
    parts = [f"{point.share * 100:.0f} % ({point.of_step})" for point in _ends(roofline)]
    return f"Of what their roofs allow, launches left out, whole steps reach {listed(parts)}."


def _furthest(roofline: Roofline) -> str:
    """Of each kind of step at the ends, the place that is lowest under its roof and takes time worth saving."""
    parts = []
    for step in _ends(roofline):
        places = [p for p in _at(roofline, step) if p.timed_ns.median >= _WORTH_A_WORD * step.timed_ns.median]
        if places:
            last = min(places, key=lambda p: p.share)
            parts.append(
                f"{last.where} ({last.of_step}: {last.share * 100:.0f} % of its roof, "
                f"{_us(last.timed_ns.median)} where {_us(last.roof_ns)} are possible)"
            )
    worth = f"{_WORTH_A_WORD * 100:.0f} %"
    return f"Furthest from its roof among what takes {worth} of a step or more: {listed(parts)}." if parts else ""


def _ends(roofline: Roofline) -> list[Point]:
    prefill = [point for point in roofline.steps if point.phase == "prefill"]
    return list(dict.fromkeys((*roofline.decode[:1], *roofline.decode[-1:], *prefill)))


def _at(roofline: Roofline, step: Point, regions: Sequence[str] | None = None) -> list[Point]:
    of = (step.phase, step.batch, step.tokens)
    return [
        p for p in roofline.places if (p.phase, p.batch, p.tokens) == of and (regions is None or p.region in regions)
    ]


def _intensity(points: Sequence[Point]) -> float:
    """Of these together; 0 for none."""
    moved = sum(p.bytes for p in points)
    return sum(p.flops for p in points) / moved if moved else 0.0


def _named(points: Sequence[Point]) -> str:
    return "; ".join(point.of_step for point in points)


def _us(ns: float) -> str:
    return f"{ns / 1e3:,.0f} us" if ns >= 1e4 else f"{ns / 1e3:.1f} us"
