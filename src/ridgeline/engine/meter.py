"""Meter: what all steps so far took of the device, and what they had to move. Knows counts; knows no model, no request.

A step's duration runs from its launch, or from the collection of the step before where that was later.
"""

from __future__ import annotations

from ridgeline.core.cost import StepBytes
from ridgeline.core.types import Output, Plan


class Meter:
    """bytes: of the model that is served; without, only time is counted."""

    def __init__(self, bytes: StepBytes | None = None) -> None:
        self._bytes = bytes or StepBytes(0, 0, 0)
        self._collected_ns = self.device_ns = self.moved_bytes = 0
        self._rows = self._computed = self._begun = 0

    def step(self, plan: Plan, output: Output, launched_ns: int, now_ns: int) -> None:
        self.device_ns += now_ns - max(launched_ns, self._collected_ns)
        self._collected_ns = now_ns
        rows, computed = len(plan.rows), output.positions - output.padding
        turns = max(1, output.tokens.shape[1]) if plan.horizon > 1 else 1
        begun = self._where(plan, rows, computed)
        # In its turn t a row that decodes attends what it began with, t + 1 positions more.
        contexts = begun + computed if turns == 1 else turns * begun + rows * turns * (turns + 1) // 2
        self.moved_bytes += self._bytes.of(turns, computed, contexts)

    def _where(self, plan: Plan, rows: int, computed: int) -> int:
        """Positions before those that are computed now, over all rows. Of a step like the one before they follow from
        it, because to sum them costs 2 us."""
        same = rows == self._rows and computed == self._computed and not plan.joins and not plan.leaves
        begun = self._begun + self._computed if same else int(plan.starts.sum())
        self._rows, self._computed, self._begun = rows, computed, begun
        return begun
