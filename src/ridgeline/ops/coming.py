"""Coming: kernels that are tried out and compiled while others serve without them. Knows one choice of kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ridgeline.ops.gemv import Chosen, FewRows

_EARLY: ContextVar[bool] = ContextVar("early", default=False)


@contextmanager
def early() -> Iterator[None]:
    """Inside, and in what is started with a copy of this context, kernels count before they are taken: for whoever has
    them compiled."""
    token = _EARLY.set(True)
    try:
        yield
    finally:
        _EARLY.reset(token)


class Coming:
    """A choice of kernels for few rows that counts for everybody once it is taken. choose: tries them out, which is
    slow."""

    note = "Triton's kernels are compiled beside service; until they are there, PyTorch's operations compute every step"

    def __init__(self, choose: Callable[[], Chosen]) -> None:
        self._choose = choose
        self._chosen: Chosen | None = None
        self._taken = False

    @property
    def kernels(self) -> FewRows | None:
        if self._chosen is None or not (self._taken or _EARLY.get()):
            return None
        return self._chosen.kernels

    @property
    def found(self) -> str:
        """What there is, in words."""
        return self.note if self._chosen is None else self._chosen.note

    def find(self) -> None:
        """To be called once, by whoever has time."""
        self._chosen = self._choose()

    def take(self) -> None:
        """Between two steps: rounding changes."""
        self._taken = True
