"""Where the time of a step goes that is neither reading nor arithmetic; and how little occupancy says about it."""

from __future__ import annotations

from ridgeline.core.cost import StepShape, step_costs, total
from ridgeline.core.floor import floors
from ridgeline.lab.learn.chapter import Found, Place
from ridgeline.lab.machine import ceilings_of
from ridgeline.lab.stepping import decode

CONTEXT, STEPS, ROUNDS = 128, 16, 5
BATCHES = (1, 32)


def accounted(place: Place) -> Found:
    """A step of one sequence: what memory, arithmetic and launches explain at most, and what remains."""
    bench = place.bench
    ceilings = ceilings_of(bench.loaded.device, place.cache, place.progress)
    context = min(CONTEXT, bench.spec.max_positions // 2)
    rows, shares = [], {}
    for done, batch in enumerate(BATCHES):
        place.progress(f"batch {batch}", done, len(BATCHES))
        timing = decode(bench, batch, context, STEPS, ROUNDS, lambda _: None)
        costs = step_costs(bench.spec, StepShape.decode(batch, context), bench.formats)
        parts = floors(costs, ceilings, bench.formats.compute)
        useful = sum(max(one.memory_ns, one.compute_ns) for one in parts)
        launch = sum(one.launch_ns for one in parts)
        shares[batch] = 100 * useful / timing.step_ns
        rows.append(
            (
                f"{batch}",
                f"{timing.step_ns / 1e6:.3f}",
                f"{useful / 1e6:.3f}",
                f"{total(costs).launches}",
                f"{launch / 1e6:.3f}",
                f"{max(0.0, timing.step_ns - useful - launch) / 1e6:.3f}",
                f"{shares[batch]:.0f} %",
            )
        )
    told = (
        f"Reading and arithmetic explain {shares[1]:.0f} % of a step of one sequence here. The rest is the work of "
        "starting operations, waiting for the one before, and of the host between steps.",
        "A profiler shows where it lies (`ridgeline profile`, `ridgeline ledger`); a counter of busy units would not: "
        "a unit that waits for memory is as busy as one that computes.",
    )
    columns = ("batch", "step, ms", "reading or arithmetic, ms", "launches", "launching, ms", "the rest, ms", "useful")
    return Found(shares[1], columns, tuple(rows), told)
