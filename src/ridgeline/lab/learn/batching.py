"""What batching brings, and why: launches and bytes a token, and the intensity that follows. Knows steps and costs."""

from __future__ import annotations

import dataclasses
from functools import partial

from ridgeline.core.cost import StepShape, step_costs, total
from ridgeline.core.floor import floors
from ridgeline.lab.learn.chapter import Figures, Found, Place
from ridgeline.lab.machine import ceilings_of
from ridgeline.lab.stepping import Timing, decode

BATCHES = (1, 2, 4, 8, 16, 32)
MANY = 16
CONTEXT, STEPS, ROUNDS = 128, 16, 5


def amortised(place: Place) -> Found:
    """Tokens a second, launches a token and bytes a token against the batch size."""
    timings = _timings(place)
    spec, formats = place.bench.spec, place.bench.formats
    rows = []
    for timing in timings:
        cost = total(step_costs(spec, StepShape.decode(timing.batch, timing.context), formats))
        rows.append(
            (
                f"{timing.batch}",
                f"{timing.step_ns / 1e6:.2f}",
                f"{_rate(timing):,.0f}",
                f"{cost.launches / timing.batch:.1f}",
                f"{cost.bytes / timing.batch / 1e6:.2f}",
            )
        )
    rates = {timing.batch: _rate(timing) for timing in timings}
    gain = rates[MANY] / rates[1]
    slower = MANY / gain
    told = (
        f"{MANY} sequences in one step give {gain:.1f} times the tokens of one, because the step takes only "
        f"{slower:.1f} times as long.",
        "What a step costs once (launches, and reading every weight) is shared by all who are in it; what each "
        "sequence costs by itself (its cache, its arithmetic) is not, and in the end it binds.",
    )
    columns = ("batch", "step, ms", "tokens/s", "launches a token", "MB read a token")
    return Found(gain, Figures(columns, tuple(rows)), told)


def intensity(place: Place) -> Found:
    """Arithmetic intensity of a decode step against the batch size, and which ceiling of this machine binds."""
    timings = _timings(place)
    device, spec, formats = place.bench.loaded.device, place.bench.spec, place.bench.formats
    ceilings = ceilings_of(device, place.cache, place.progress)
    ridge = ceilings.ridge(formats.compute)
    rows, found = [], {}
    for timing in timings:
        costs = step_costs(spec, StepShape.decode(timing.batch, timing.context), formats)
        parts = floors(costs, ceilings, formats.compute)
        memory, compute, launch = (
            sum(getattr(floor, name) for floor in parts) for name in ("memory_ns", "compute_ns", "launch_ns")
        )
        binds = max(("reading", memory), ("arithmetic", compute), ("launches", launch), key=lambda one: one[1])[0]
        found[timing.batch] = total(costs).intensity
        rows.append(
            (
                f"{timing.batch}",
                f"{found[timing.batch]:.1f}",
                *(f"{ns / 1e6:.3f}" for ns in (memory, compute, launch)),
                binds,
                f"{timing.step_ns / 1e6:.2f}",
            )
        )
    told = (
        f"At batch 1 a step does {found[1]:.2g} operations for each byte; this machine could do {ridge:.0f} in the "
        "time that a byte takes to come from memory (the ridge of its roofline).",
        "A step of a small batch leaves the arithmetic idle; a further sequence uses weights that are there anyway.",
    )
    columns = ("batch", "FLOP a byte", "reading, ms", "arithmetic, ms", "launches, ms", "largest", "measured, ms")
    return Found(found[1], Figures(columns, tuple(rows)), told)


def _timings(place: Place) -> list[Timing]:
    whole, done = ROUNDS * len(BATCHES), 0

    def tell(what: str) -> None:
        nonlocal done
        place.progress(what, done, whole)
        done += 1

    context = min(CONTEXT, place.bench.spec.max_positions // 2)
    measured = partial(decode, place.bench, context=context, steps=STEPS, rounds=ROUNDS, tell=tell)
    return [dataclasses.replace(measured(batch=batch), context=context) for batch in BATCHES]


def _rate(timing: Timing) -> float:
    return timing.tokens / timing.step_ns * 1e9
