"""Micro: every operation alone, each version against its reference, in turn. Knows OPS and ceilings; knows no model.

In each round the reference and every version run the same arguments, one after the other, so that a machine that gets
slower gets slower for all; a ratio is of one round. Results are compared with the definition in float32 before
anything is timed, because a fast wrong operation is no gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from ridgeline.bench.duel import compare
from ridgeline.bench.order import LEAST_ROUNDS
from ridgeline.core.ceilings import Ceilings, to_json
from ridgeline.core.errors import ConfigError, did_you_mean
from ridgeline.core.records import provenance
from ridgeline.device.base import Device
from ridgeline.lab.machine import Progress
from ridgeline.lab.rig import formats_of
from ridgeline.ops.cases import Shape, wide
from ridgeline.ops.table import OPS, Op

KIND, FORMAT = "micro", 1
REFERENCE = "reference"
_LOOP_NS = 10_000_000  # what one timing takes at least: a hundred times what a clock and a first call disturb
_MOST_CALLS, _MOST_COPIES, _MOST_BYTES = 1000, 256, 1 << 30

Row = dict[str, Any]
Arguments = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """What to time: these operations, in so many rounds. Raises ConfigError."""

    ops: tuple[Op, ...]
    rounds: int
    seed: int

    def __post_init__(self) -> None:
        if self.rounds < LEAST_ROUNDS:
            raise ConfigError(
                f"--rounds: {self.rounds} is too few to tell a difference from chance; at least {LEAST_ROUNDS}"
            )

    @staticmethod
    def of(names: Sequence[str], rounds: int, seed: int) -> Order:
        """names: of operations; none is all of them."""
        known = {op.name: op for op in OPS}
        for name in names:
            if name not in known:
                raise ConfigError(f"--op: {name!r} is not one of {', '.join(known)}{did_you_mean(name, known)}")
        return Order(tuple(op for op in OPS if op.name in names or not names), rounds, seed)


def run(order: Order, device: Device, ceilings: Ceilings, progress: Progress, command: list[str]) -> Row:
    """The run file. After Ctrl-C it has what was measured by then, and `interrupted`."""
    formats, begun = formats_of(device), provenance(command)
    ceilings.peak(formats.compute)  # its absence is told before minutes of measuring
    rows: list[Row] = []
    failures: list[Row] = []
    interrupted = False
    try:
        rows.extend(timings(order, device, ceilings, progress, failures))
    except KeyboardInterrupt:
        interrupted = True
    return {
        "format": FORMAT,
        "kind": KIND,
        "provenance": begun,
        "config": {
            "device": device.name,
            "formats": asdict(formats),
            "ops": [op.name for op in order.ops],
            "rounds": order.rounds,
            "seed": order.seed,
        },
        "ceilings": to_json(ceilings),
        "interrupted": interrupted,
        "failures": failures,
        "results": rows,
    }


def timings(order: Order, device: Device, ceilings: Ceilings, progress: Progress, failures: list[Row]) -> Iterator[Row]:
    """A row for the reference and for every version of every operation at every size, as soon as it is known.

    time_ns: of one call. gb_per_s: of the bytes that the algorithm moves. level: where those bytes were. of_bandwidth,
    of_peak: shares of that level's bandwidth and of the matrix peak; None without FLOP. against: the time over the
    reference's with its interval; None for the reference. max_error: largest distance from the definition; None where
    something is no number. failures: gets the versions that could not run.
    """
    trials = [(op, shape) for op in order.ops for shape in op.sizes]
    for i, (op, shape) in enumerate(trials):
        progress(f"{op.name} {named(shape)}", i, len(trials))
        yield from _timed(op, shape, device, ceilings, order, failures)
    progress("", len(trials), len(trials))


def verdict(row: Row) -> str:
    """`wrong` beats all; `undecided` where the interval has 1 in it or the reference itself moved more than that."""
    if not row["agrees"]:
        return "wrong"
    against = row["against"]
    if against is None:
        return "-"
    if against["low"] <= 1 <= against["high"] or abs(against["drift"]) > abs(against["ratio"] - 1):
        return "undecided"
    return "faster" if against["high"] < 1 else "slower"


def named(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _timed(
    op: Op, shape: Shape, device: Device, ceilings: Ceilings, order: Order, failures: list[Row]
) -> Iterator[Row]:
    formats = formats_of(device)
    moved, flops = op.cost(shape, formats)
    given = op.inputs(shape, device, torch.Generator().manual_seed(order.seed))
    plain = _of_one_format(given)
    with torch.inference_mode():
        expected = _parts(op.reference(*wide(given)))
        found = {REFERENCE: _parts(op.reference(*plain))}
        for name, run in op.versions_for(device).items():
            try:
                found[name] = _parts(run(*given))
            except RuntimeError as error:  # a kernel that cannot be built or launched here; the others still can
                failures.append({"op": op.name, "version": name, "shape": list(shape), "error": str(error)})
        copies = _copies(op, given, ceilings)
        plains = copies if plain is given else _copies(op, plain, ceilings)
        loops = {
            name: _loop(op.reference, plains, device) if name == REFERENCE else _loop(op.versions[name], copies, device)
            for name in found
        }
        errors = {name: _distance(parts, expected, device) for name, parts in found.items()}
        times = _in_turn(loops, order.rounds)
    level, peak = ceilings.level_for(moved * len(copies)), ceilings.peak(formats.compute)
    for name, taken in times.items():
        middle = median(taken)
        yield {
            "op": op.name,
            "version": name,
            "shape": list(shape),
            "time_ns": {"median": middle, "low": min(taken), "high": max(taken)},
            "rounds_ns": taken,
            "bytes": moved,
            "flops": flops,
            "gb_per_s": moved / middle,
            "level": level.name,
            "of_bandwidth": moved / middle * 1e9 / level.read.median,
            "of_peak": flops / middle * 1e9 / peak if flops else None,
            "against": None if name == REFERENCE else _ratio(taken, times[REFERENCE]),
            "max_error": errors[name][0] if math.isfinite(errors[name][0]) else None,
            "agrees": errors[name][1],
        }


def _of_one_format(given: Arguments) -> Arguments:
    """As a definition takes them: where formats are mixed (16-bit weights, float32 activations) all are widened."""
    kinds = {v.dtype for v in given if isinstance(v, torch.Tensor) and v.dtype in (torch.bfloat16, torch.float32)}
    return wide(given) if len(kinds) > 1 else given


def _copies(op: Op, given: Arguments, ceilings: Ceilings) -> list[Arguments]:
    """Arguments to go round, together twice the last cache, so that weights come from memory as in a model's step;
    one for all others, whose data was written just before in a model too."""
    own = sum(v.numel() * v.element_size() for v in given if isinstance(v, torch.Tensor))
    cache = ceilings.last_cache
    if not op.streams or cache is None or cache.capacity_bytes is None:
        return [given]
    count = min(math.ceil(2 * cache.capacity_bytes / own), _MOST_COPIES, max(1, _MOST_BYTES // own))
    more = [tuple(v.clone() if isinstance(v, torch.Tensor) else v for v in given) for _ in range(count - 1)]
    return [given, *more]


def _loop(run: Callable[..., Any], copies: Sequence[Arguments], device: Device) -> Callable[[], float]:
    """A function that runs it often enough, and returns nanoseconds a call."""

    def timed(calls: int) -> float:
        device.synchronize()
        with device.timer() as timer:
            for i in range(calls):
                run(*copies[i % len(copies)])
        return timer.elapsed_ns / calls

    timed(len(copies))  # the first pass makes buffers, picks kernels and fills caches
    once = max(timed(len(copies)), 1.0)
    rounds = math.ceil(min(_LOOP_NS / once, _MOST_CALLS) / len(copies))
    calls = max(1, rounds) * len(copies)
    return lambda: timed(calls)


def _in_turn(loops: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every second round backwards, so that none always follows the same."""
    times: dict[str, list[float]] = {name: [] for name in loops}
    for i in range(rounds):
        for name in list(loops)[:: -1 if i % 2 else 1]:
            times[name].append(loops[name]())
    return times


def _ratio(taken: Sequence[float], baseline: Sequence[float]) -> Row:
    found = compare(taken, baseline)
    return {name: getattr(found, name) for name in ("ratio", "low", "high", "coverage", "rounds", "drift")}


def _parts(result: Any) -> tuple[torch.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _distance(
    found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...], device: Device
) -> tuple[float, bool]:
    """The largest distance of a value, and whether all are as near as the device's format allows (token ids: equal)."""
    short = device.dtype is not torch.float32
    most, agrees = 0.0, len(found) == len(expected)
    for one, other in zip(found, expected, strict=False):
        if one.shape != other.shape:
            return math.inf, False
        if not other.is_floating_point():
            agrees = agrees and torch.equal(one, other)
        a, b = one.to(torch.float64), other.to(torch.float64)
        # Where both are the same infinity (a token that is ruled out) there is no distance.
        apart = torch.where(a == b, 0.0, (a - b).abs()).nan_to_num(nan=math.inf)
        most = max(most, float(apart.max()) if apart.numel() else 0.0)
        allowed = 5e-2 + 2e-2 * b.abs() if short else 1e-4 + 1e-4 * b.abs()
        agrees = agrees and bool((apart <= allowed).all())
    return most, agrees
