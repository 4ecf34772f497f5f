"""Grid: which servers and loads the trade-offs are measured with. Data and arithmetic; starts nothing."""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline.menu import MENU

WINDOWS_MS = (0, 5, 20, 50, 100)
MIDDLE_WINDOW_MS = 20
# With these, a limit of the batch means nothing or there is a window besides; all others have a limit alone.
ALONE, WINDOWED = "one", "dynamic"


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to batch. window_ms, limit: None where the policy has none."""

    batching: str
    window_ms: int | None = None
    limit: int | None = None

    @property
    def flags(self) -> list[str]:
        flags = ["--batching", self.batching]
        if self.window_ms is not None:
            flags += ["--batch-window-ms", str(self.window_ms)]
        if self.limit is not None:
            flags += ["--max-batch-size", str(self.limit), "--max-num-seqs", str(self.limit)]
        return flags

    @property
    def name(self) -> str:
        parts = [self.batching]
        if self.window_ms is not None:
            parts.append(f"{self.window_ms} ms")
        if self.limit is not None:
            parts.append(f"max {self.limit}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Grid:
    """How much is measured. rates: as parts of what one request at a time reaches; load_s: sending time of each.

    limits: the first is the one that every window is tried with; corner_limits: tried with the middle window only.
    spreads: prompt lengths from low to high around one mean. batches: requests at once for the memory.
    """

    limits: tuple[int, ...]
    corner_limits: tuple[int, ...]
    rates: tuple[float, ...]
    load_s: float
    spreads: tuple[tuple[int, int], ...]
    padding_requests: int
    batches: tuple[int, ...]

    @property
    def settings(self) -> list[Setting]:
        """ALONE first, because its speed sets the rates."""
        found = [Setting(ALONE)]
        for batching in MENU["batching"]:
            if batching == WINDOWED:
                found += [Setting(batching, window, limit) for limit in self.limits for window in WINDOWS_MS]
                found += [Setting(batching, MIDDLE_WINDOW_MS, limit) for limit in self.corner_limits]
            elif batching != ALONE:
                found += [Setting(batching, limit=limit) for limit in (*self.limits, *self.corner_limits)]
        return found

    @property
    def steps(self) -> int:
        """For a progress bar: loads of all kinds."""
        return len(self.settings) * len(self.rates) + len(self.spreads) + len(self.batches)


_SPREADS = ((64, 64), (48, 80), (32, 96), (16, 112), (4, 124))
QUICK = Grid(
    limits=(8,), corner_limits=(2,), rates=(0.5, 1.5, 4.0), load_s=1.5, spreads=_SPREADS, padding_requests=64,
    batches=(1, 4, 16, 32),
)  # fmt: skip
FULL = Grid(
    limits=(4, 8, 16), corner_limits=(), rates=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0), load_s=5.0, spreads=_SPREADS,
    padding_requests=96, batches=(1, 2, 4, 8, 16, 32, 64),
)  # fmt: skip
