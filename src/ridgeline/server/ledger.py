"""Wall ledger: where the time of one generation went, part by part. Knows stamps and the engine's account; no token.

The parts are contiguous and in the order of PARTS: those before the engine, the engine's own up to `finished_ns`, and
what came after, up to the last byte of the answer. So they add up to the wall time, and nothing remains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.core.types import Timings
from ridgeline.engine.course import WORKING, WRITING, Course

Json = dict[str, Any]

ENGINE = ("window", "queued", "prefill", "others", "decode", "preempted", "recomputed")
PARTS = ("received", "tokenised", *ENGINE, "delivered", "detokenised", "socket")


@dataclass(frozen=True, slots=True)
class Ledger:
    """parts_ns: by name, in the order of PARTS; those that are not known are left out. wall_ns: from the request's head
    to the end. beside_ns: what the front did while the engine worked, which is in no part."""

    parts_ns: Mapping[str, int]
    wall_ns: int
    beside_ns: Mapping[str, int]

    def json(self) -> Json:
        return {
            "wall_ms": self.wall_ns / 1e6,
            "parts": [{"name": name, "ms": ns / 1e6} for name, ns in self.parts_ns.items()],
            "overlapped": {f"{name}_ms": ns / 1e6 for name, ns in self.beside_ns.items()},
        }


def ledger(arrived_ns: int, parsed_ns: int, course: Course, until_ns: int, running: Timings | None) -> Ledger:
    """until_ns: the last byte, or now. running: what the engine says so far of a request that is not over.

    A request that was aborted lasts until the engine let it go, even if nobody waited for that.
    """
    parts = {"received": parsed_ns - arrived_ns, "tokenised": course.asked_ns - parsed_ns}
    if course.end is None:
        parts |= engine_parts(running) if running else {}
    else:
        timings = course.end.timings
        until_ns = max(until_ns, timings.finished_ns)
        parts |= engine_parts(timings)
        worked, written = course.spent_ns[WORKING], course.spent_ns[WRITING]
        after = until_ns - timings.finished_ns
        parts |= {"delivered": after - worked - written, "detokenised": worked, "socket": written}
    beside = {"detokenised": course.worked_ns, "socket": course.blocked_ns}
    return Ledger(parts, until_ns - arrived_ns, beside)


def engine_parts(t: Timings) -> dict[str, int]:
    """From when the engine was asked to finished_ns."""
    return {name: getattr(t.parts, f"{name}_ns") for name in ENGINE}


def device_ms(t: Timings) -> float:
    """The request's share of the device's time: the resource ledger."""
    return t.device_ns / 1e6
