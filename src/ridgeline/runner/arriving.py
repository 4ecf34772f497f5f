"""Arriving: a runner that serves by PyTorch's operations until its kernels are compiled, by an understudy of it in a
thread, and takes them between two steps. Knows runners; knows no request, and not which kernels there are.

An understudy is a runner of the same model with a cache of a few blocks: its warm-up compiles what every warm-up does,
and nothing that serves is touched by it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from ridgeline.core.steptime import TimedSteps
from ridgeline.core.types import Plan
from ridgeline.ops.coming import Coming, early
from ridgeline.runner.graphs import NoGraphs, Replays
from ridgeline.runner.launched import Launched
from ridgeline.runner.runner import Runner
from ridgeline.runner.timing import time_steps

_LOOK_S = 0.01
"""So long an idle engine waits for the compiler before it looks for messages again."""


class Taken(Protocol):
    def take(self) -> None:
        """Between two steps: what was compiled counts from now on."""
        ...


class Later:
    """Replays that are made when they are taken; until then every step is packed. kind: what they are to be."""

    def __init__(self, kind: Callable[..., Replays], *given: Any) -> None:
        self._make = partial(kind, *given)
        self._now: Replays = NoGraphs()

    def take(self) -> None:
        self._now = self._make()

    def launch(self, plan: Plan) -> Launched | None:
        return self._now.launch(plan)

    def between(self) -> None:
        self._now.between()

    def idle(self) -> bool:
        return self._now.idle()

    def rehearse(self) -> None:
        self._now.rehearse()


class Arriving:
    """An upkeep of the engine. coming: kernels to be found. understudy: makes one. parts: what is taken with them.
    timed: called with what steps take then. told: with a sentence for the operator."""

    def __init__(
        self, coming: Coming, understudy: Callable[[], Runner], parts: Sequence[Taken],
        timed: Callable[[TimedSteps | None], None], told: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._coming, self._understudy, self._parts = coming, understudy, (coming, *parts)
        self._timed, self._told = timed, told
        self._over, self._waiting = threading.Event(), True
        self._steps: TimedSteps | None = None
        self._error: Exception | None = None
        self._begun = time.perf_counter()
        threading.Thread(target=self._compile, name="kernels", daemon=True).start()

    def between(self) -> None:
        """Before a step: take the kernels if they are there."""
        if self._waiting and self._over.is_set():
            self._waiting = False
            self._take()

    def idle(self) -> bool:
        """Nothing is to do: wait for the compiler a little. False: nothing is being compiled any more."""
        if self._waiting:
            self._over.wait(_LOOK_S)
        return self._waiting

    def _take(self) -> None:
        if self._error is not None:
            logging.getLogger("ridgeline").warning("PyTorch's operations go on computing every step: %s", self._error)
            return
        for part in self._parts:
            part.take()
        self._timed(self._steps)
        took_s = time.perf_counter() - self._begun
        self._told(f"compiled kernels compute from now on, {took_s:.1f} s after the start: {self._coming.found}")

    def _compile(self) -> None:
        try:
            with early():
                self._coming.find()
                understudy = self._understudy()
                understudy.warm_up()
                self._steps = time_steps(understudy)
        except Exception as error:  # a compiler's or a driver's, whatever it is: what serves goes on
            self._error = error
        finally:
            self._over.set()
