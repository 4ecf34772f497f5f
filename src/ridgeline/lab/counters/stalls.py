"""Stall stack: where the cycles of a step went, by reason, as far as counters say. Divides counts; runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ridgeline.lab.counters.ncu import STALL, STALLS, Kernel
from ridgeline.lab.counters.perf import Count

# In the order of the stack; what is not named is "other".
WARPS = {
    "selected": "issuing an instruction",
    "not_selected": "not selected: ready, another warp was issued",
    "long_scoreboard": "waiting for DRAM, L2 or L1",
    "short_scoreboard": "waiting for shared memory",
    "barrier": "waiting at a barrier",
    "membar": "waiting for a memory fence",
    "gmma": "waiting for a tensor core's operands",
    "math_pipe_throttle": "waiting for an arithmetic pipe",
    "lg_throttle": "queue to global memory full",
    "mio_throttle": "queue to shared memory full",
    "wait": "fixed latency of the instruction before",
    "no_instruction": "waiting for instructions",
}
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Stack:
    """shares: of all cycles, by reason in the order to show them; they add up to 1. of: which cycles. None with a
    reason where counters do not say. note: what the reader must know of them."""

    source: str
    of: str
    shares: Mapping[str, float] | None
    reason: str | None = None
    note: str | None = None


def cpu_stack(counts: Mapping[str, Count]) -> Stack:
    """counts: by Ridgeline's keys (perf.EVENTS)."""
    value = {key: count.value for key, count in counts.items() if count.value is not None}
    cycles = value.get("cycles")
    if not cycles:
        missing = counts.get("cycles")
        return Stack("perf", _CYCLES, None, missing.reason if missing else "perf did not run")
    memory, stalled = value.get("stalls_memory"), value.get("stalls_total")
    back, front = value.get("stalls_backend"), value.get("stalls_frontend")
    if memory is not None:
        parts = {"waiting for memory": memory}
        if stalled is not None:
            parts["waiting for something else"] = max(0.0, stalled - memory)
        rest = "working" if stalled is not None else "working, or waiting for something else"
    elif back is not None:
        parts = {"back end waits (memory or arithmetic units)": back}
        rest = "working" if front is not None else "working, or waiting for instructions"
        if front is not None:
            parts["front end waits (instructions)"] = front
    else:
        reason = counts["stalls_memory"].reason if "stalls_memory" in counts else "perf did not run"
        return Stack("perf", _CYCLES, None, reason)
    # Events counted at different times can exceed the cycles by their error; a share may not.
    whole = max(cycles, sum(parts.values()))
    shares = {rest: (whole - sum(parts.values())) / whole} | {name: part / whole for name, part in parts.items()}
    return Stack("perf", _CYCLES, shares)


_CYCLES = "cycles of all threads"


def gpu_stack(kernels: Sequence[Kernel]) -> Stack:
    """Kernels count by the cycles of their warps: warps in a state at an issue times issues."""
    totals, left_out = dict[str, float](), 0
    for kernel in kernels:
        mine = warp_cycles(kernel)
        left_out += not mine
        for name, cycles in mine.items():
            label = WARPS.get(name, OTHER)
            totals[label] = totals.get(label, 0.0) + cycles
    whole = sum(totals.values())
    if not whole:
        return Stack("ncu", _WARP_CYCLES, None, "ncu has no stall reasons of these kernels")
    order = [label for label in (*WARPS.values(), OTHER) if label in totals]
    note = f"without {left_out} of {len(kernels)} kernels, of which ncu has no stall reasons" if left_out else None
    return Stack("ncu", _WARP_CYCLES, {label: totals[label] / whole for label in order}, None, note)


_WARP_CYCLES = "cycles of resident warps"


def warp_cycles(kernel: Kernel) -> dict[str, float]:
    """By reason (ncu.STALLS); empty where ncu did not say."""
    issued = kernel.values.get("issued")
    if not issued:
        return {}
    found = {name: kernel.values.get(STALL + name) for name in STALLS}
    return {name: ratio * issued for name, ratio in found.items() if ratio is not None}


def top_stall(kernels: Sequence[Kernel]) -> tuple[str, float] | None:
    """The largest reason other than issuing itself, and its share of all the warps' cycles."""
    stack = gpu_stack(kernels)
    stalls = {name: share for name, share in (stack.shares or {}).items() if name != WARPS["selected"]}
    return max(stalls.items(), key=lambda item: item[1]) if stalls else None
