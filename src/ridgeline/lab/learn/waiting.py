"""Where the time of a step goes that is neither reading nor arithmetic; and how little occupancy says about it."""

from __future__ import annotations

from ridgeline.core.cost import StepShape, step_costs, total
from ridgeline.core.floor import floors
from ridgeline.device import reading
from ridgeline.device.cuda import CudaDevice
from ridgeline.device.occupancy_cuda import LOADS, occupancies
from ridgeline.device.repeats import Budget
from ridgeline.lab.learn.chapter import Figures, Found, Place
from ridgeline.lab.machine import ceilings_of
from ridgeline.lab.stepping import decode

CONTEXT, STEPS, ROUNDS = 128, 16, 5
BATCHES = (1, 32)
_MEMORY_BYTES = 1 << 30
_BUDGET = Budget(repeats=5, repeat_ns=20_000_000)


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
    device = bench.loaded.device
    place.progress("reading memory", len(BATCHES), len(BATCHES) + 1)
    if isinstance(device, CudaDevice):
        return Found(shares[1], Figures(columns, tuple(rows)), (*told, _ON_GPU), occupied(device))
    return Found(shares[1], Figures(columns, tuple(rows)), (*told, _ON_CPU), alone(place, device.threads or 1))


_ON_GPU = (
    "Below: what is read from memory with so many warps on each multiprocessor. Eight loads a thread reach with few "
    "warps what one load a thread needs all of them for: bytes in flight count, not threads."
)
_ON_CPU = (
    "Below: what so many cores read from memory. A core can have only so many lines on their way, so one alone draws "
    "what that allows, however idle the memory is."
)


def occupied(device: CudaDevice) -> Figures:
    found = {(one.warps, one.loads): one for one in occupancies(device)}
    warps = sorted({warps for warps, _ in found})
    columns = ("warps each", *(f"{loads} load{'s' * (loads > 1)} a thread, GB/s" for loads in LOADS))
    rows = tuple((f"{n}", *(f"{found[n, loads].bytes_per_s / 1e9:,.0f}" for loads in LOADS)) for n in warps)
    return Figures(columns, rows)


def alone(place: Place, threads: int) -> Figures:
    """Reading from memory with one core, with two, with four and with all."""
    rows = []
    for count in sorted({1, 2, 4, threads}):
        if count <= threads:
            with reading.choose(count, place.cache) as reader:
                read = reader.rate(_MEMORY_BYTES, _BUDGET).median
            rows.append((f"{count}", f"{read / 1e9:.1f}", f"{read / count / 1e9:.1f}"))
    return Figures(("cores", "read from memory, GB/s", "a core, GB/s"), tuple(rows))
