"""Waiting: from the first knock to a server that takes requests, with its progress on the screen."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ridgeline.bench.clock import Clock
from ridgeline.bench.remote import Broken, Ready, Remote, Starting, State, Unreachable
from ridgeline.core.errors import Unavailable

POLL_S = 0.25
START_HINT = "start one with: python server.py"


class Display(Protocol):
    def show(self, state: Starting) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BarDisplay:
    """A bar that moves, for a terminal. Appears with the first news."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[share]}"))
        self._progress = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
        self._task = self._progress.add_task("", total=100, share="", visible=False)

    def show(self, state: Starting) -> None:
        self._progress.start()
        self._progress.update(
            self._task,
            description=state.phase,
            total=None if state.percent is None else 100,
            completed=state.percent or 0,
            share="" if state.percent is None else f"{state.percent:.0f} %",
            visible=True,
            refresh=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class LineDisplay:
    """A line for every new phase and every ten percent of it, for a pipe or a log file."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[str, int] | None = None

    def show(self, state: Starting) -> None:
        mark = (state.phase, int((state.percent or 0) // 10))
        if mark == self._last:
            return
        self._last = mark
        share = "" if state.percent is None else f" {state.percent:.0f} %"
        self._console.print(f"the server is starting: {state.phase}{share}", markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


def display_for(console: Console) -> Display:
    return BarDisplay(console) if console.is_terminal else LineDisplay(console)


async def wait_until_ready(remote: Remote, display: Display, clock: Clock, wait_s: float, stall_s: float) -> Ready:
    """Returns once the server takes requests.

    Raises Unavailable, with a message for the user, where nothing listens for wait_s, where the server has failed or
    ended, and where a starting server shows no progress for stall_s.
    """
    state = await _first_state(remote, clock, wait_s)
    moved_s = clock.now()
    while not isinstance(state, Ready):
        if isinstance(state, Broken):
            raise Unavailable(f"the server at {remote.url} has failed: {state.message}")
        if clock.now() - moved_s > stall_s:
            raise Unavailable(f"the server at {remote.url} made no progress for {stall_s:.0f} s ({state.phase})")
        display.show(state)
        await clock.sleep(POLL_S)
        try:
            news = await remote.state()
        except Unreachable as error:
            raise Unavailable(f"the server at {remote.url} ended while it was starting") from error
        if news != state:
            state, moved_s = news, clock.now()
    return state


async def _first_state(remote: Remote, clock: Clock, wait_s: float) -> State:
    until_s = clock.now() + wait_s
    while True:
        try:
            return await remote.state()
        except Unreachable as error:
            if clock.now() >= until_s:
                raise Unavailable(f"no server answers at {remote.url}\n{START_HINT}") from error
        await clock.sleep(POLL_S)
