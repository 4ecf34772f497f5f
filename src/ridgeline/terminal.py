"""Terminal: what the operator sees on stderr: lines, and a bar while something is downloaded. Knows no model."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from ridgeline.core.plaintext import harmless
from ridgeline.core.progress import Progress


class Terminal:
    """A bar on a terminal; elsewhere (a pipe, a log file) a line for every ten percent."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar: Bar | None = None
        self._told: tuple[str, int] | None = None
        self._done = False

    def say(self, line: str) -> None:
        self._console.print(harmless(line), markup=False, highlight=False, soft_wrap=True)

    def progress(self, at: Progress) -> None:
        """News of a download, in bytes."""
        if self._done:
            return
        if self._console.is_terminal:
            self._draw(at)
        elif self._told != (mark := (at.phase, at.percent // 10)):
            self._told = mark
            self.say(f"{at.phase}: {at.percent} % of {at.total / 1e6:.0f} MB")

    def _draw(self, at: Progress) -> None:
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Bar(*columns, TimeRemainingColumn(), console=self._console, transient=True)
            self._bar.add_task(at.phase)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], description=at.phase, completed=at.done, total=at.total or None)

    def done(self) -> None:
        """The download is over, well or not: the bar goes, and news of one that was given up is not shown."""
        self._done = True
        if self._bar is not None:
            self._bar.stop()
