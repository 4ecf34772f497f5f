"""A batch that nobody joins once it runs, and what it has cost so far. Knows no request and no slot."""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline.core.types import BatchRecord, Output


@dataclass(eq=False, slots=True)
class Batch:
    """The live side of BatchRecord; the scheduler writes it.

    A preempted member counts in `size` to the end: its seat stays empty. It is admitted again into a later batch.
    padded_length: the longest member at admission, output recomputed after preemption included.
    """

    serial: int
    size: int
    closed: str
    opened_ns: int
    closed_ns: int
    padded_length: int
    steps: int = 0
    positions: int = 0
    padding: int = 0
    kv_blocks: int = 0

    def stepped(self, output: Output) -> None:
        self.steps += 1
        self.positions += output.positions
        self.padding += output.padding

    def record(self) -> BatchRecord:
        return BatchRecord(
            serial=self.serial,
            size=self.size,
            closed=self.closed,
            opened_ns=self.opened_ns,
            closed_ns=self.closed_ns,
            padded_length=self.padded_length,
            steps=self.steps,
            positions=self.positions,
            padding=self.padding,
            kv_blocks=self.kv_blocks,
        )
