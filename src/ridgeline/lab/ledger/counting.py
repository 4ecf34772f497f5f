"""Counting: what the hardware says of steps that were timed. Knows how bytes come into entries; runs no tool."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from ridgeline.lab.counters.counters import Case
from ridgeline.lab.counters.counting import Traffic
from ridgeline.lab.ledger.entries import Step


class Counts(Protocol):
    """lab/counters/counting.Counting."""

    def traffic(self, case: Case, *, on_gpu: bool) -> Traffic: ...


def counted(step: Step, counts: Counts, *, on_gpu: bool) -> Step:
    """The step with bytes from memory, of every place where the tool tells them apart; or with the reason why not."""
    found = counts.traffic(Case(step.phase, step.batch, step.context), on_gpu=on_gpu)
    if found.bytes is None:
        return replace(step, uncounted=found.reason)
    places = step.places
    if found.places is not None:
        places = tuple(replace(entry, counted_bytes=found.places.get(entry.place, 0)) for entry in places)
    return replace(step, places=places, counted_bytes=found.bytes, counted_how=found.how, uncounted=None)
