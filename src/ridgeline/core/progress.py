"""Progress: how far a long piece of work has come. Knows no bar and no HTTP."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """phase: what is being done, for people (`downloading gpt2`). done, total: bytes; total 0 is not known yet."""

    phase: str
    done: int
    total: int

    @property
    def percent(self) -> int:
        """0 to 100, rounded down, so that 100 means finished."""
        return min(100, 100 * self.done // self.total) if self.total else 0
