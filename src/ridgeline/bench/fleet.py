"""Fleet: one load sent by one process or by several at once. Knows processes; knows no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from ridgeline.bench.records import Outcome
from ridgeline.bench.share import BUSY_SHARE, Share, Work, run_share
from ridgeline.core.errors import Unavailable

# So many seconds ahead a start is agreed on; news goes to the parent as often.
LEAD_S = 0.2
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 30.0

Show = Callable[[int], None]


@dataclass(slots=True)
class Load:
    """What became of one load. cpu_shares: of one core, one for each client process. interrupted: by Ctrl-C.

    lost: client processes that ended before their part of the load did; their requests are missing.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    cpu_shares: list[float] = field(default_factory=list)
    interrupted: bool = False
    lost: int = 0

    @property
    def client_bound(self) -> bool:
        """Whether a client was so busy that its own delays may be in the figures."""
        return any(share > BUSY_SHARE for share in self.cpu_shares)


def send(share: Share, show: Show) -> Load:
    """Sends the load and returns what became of it, also when it was interrupted. show: requests that have ended."""
    load = _send_alone(share, show) if share.order.client_processes == 1 else _send_together(share, show)
    load.outcomes.sort(key=lambda o: o.sent_s)
    load.outcomes = [replace(o, number=i) for i, o in enumerate(load.outcomes, 1)]
    return load


def _send_alone(share: Share, show: Show) -> Load:
    work, interrupted = Work(), False

    async def at_once() -> float:
        return time.perf_counter()

    try:
        _run(run_share(share, work, at_once, lambda _outcome: show(len(work.outcomes))))
    except KeyboardInterrupt:
        interrupted = True
    return Load(work.outcomes, [work.cpu_share], interrupted)


def _send_together(share: Share, show: Show) -> Load:
    spawn = multiprocessing.get_context("spawn")
    ends: list[Connection] = []
    children = []
    many = share.order.client_processes
    try:
        for index in range(many):
            ours, theirs = spawn.Pipe()
            child = spawn.Process(target=_child, args=(replace(share, index=index, of=many), theirs), daemon=True)
            with _no_interrupt():
                child.start()
            theirs.close()
            ends.append(ours)
            children.append(child)
        _start_all(ends)
        return _gather(ends, show)
    except (EOFError, OSError) as error:
        raise Unavailable("a client process ended before it began; the reason stands above") from error
    except KeyboardInterrupt:
        return Load(interrupted=True)
    finally:
        for end in ends:
            end.close()
        for child in children:
            child.join(END_TIMEOUT_S)
            if child.is_alive():
                child.kill()


def _start_all(ends: list[Connection]) -> None:
    """Every child is prepared before any is told when to begin. Raises Unavailable, EOFError and OSError."""
    for end in ends:
        if not end.poll(START_TIMEOUT_S):
            raise Unavailable(f"a client process was not ready within {START_TIMEOUT_S:.0f} s")
        end.recv()
    go_s = time.perf_counter() + LEAD_S
    for end in ends:
        end.send(go_s)


def _gather(ends: list[Connection], show: Show) -> Load:
    """Numbers are news, a Work is the end of one client."""
    load = Load()
    ended = dict.fromkeys(ends, 0)
    left = list(ends)
    while left:
        try:
            for end in wait(left, timeout=1.0):
                assert isinstance(end, Connection)
                try:
                    news = end.recv()
                except (EOFError, OSError):
                    left.remove(end)
                    load.lost += 1
                    continue
                if isinstance(news, Work):
                    left.remove(end)
                    load.outcomes += news.outcomes
                    load.cpu_shares.append(news.cpu_share)
                else:
                    ended[end] = news
                    show(sum(ended.values()))
        except KeyboardInterrupt:
            load.interrupted = True
            for end in left:
                with contextlib.suppress(OSError):  # the next turn meets its end
                    end.send("stop")
    return load


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """A child that is started inside never sees Ctrl-C: the parent decides, and wants what there is. Its own waits."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(share: Share, end: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in _no_interrupt, where there are no masks
    work = Work()
    with contextlib.suppress(EOFError, OSError):  # the parent gave up, and says why itself
        _run(_until_stopped(share, work, end))
        end.send(work)


async def _until_stopped(share: Share, work: Work, end: Connection) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    told_s = 0.0

    async def agree() -> float:
        """Nothing else runs in this loop yet, so it may wait for the parent's word."""
        end.send("ready")
        origin_s = float(end.recv())
        threading.Thread(target=listen, daemon=True).start()
        return origin_s

    def listen() -> None:
        with contextlib.suppress(EOFError, OSError):  # a parent that is gone wants no more load either
            end.recv()
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(stop.set)

    def news(_outcome: Outcome) -> None:
        nonlocal told_s
        if time.perf_counter() - told_s >= LEAD_S:
            told_s = time.perf_counter()
            end.send(len(work.outcomes))

    sending = asyncio.create_task(run_share(share, work, agree, news))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({sending, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for task in (sending, stopping):
        task.cancel()
    done = await asyncio.gather(sending, stopping, return_exceptions=True)
    if isinstance(done[0], Exception):
        raise done[0]


def _run(main: Coroutine[Any, Any, None]) -> None:
    """uvloop's loop takes 50,000 separate events a second on a core where asyncio's own takes 30,000."""
    if sys.platform == "win32":
        asyncio.run(main)
        return
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
