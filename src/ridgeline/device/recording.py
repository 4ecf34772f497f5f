"""Recording: calls of native code in their order, so that they can be made again without Python between them. Knows no
kernel.

What a CUDA graph is to a GPU: the addresses stay as they are, and what lies there is new.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")
MOST_GIVEN = 6
_MAKES_MEMORY = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})


class _Here(threading.local):
    """Recordings of this thread: another thread's calls are another engine's."""

    def __init__(self) -> None:
        self.recordings: list[Recording] = []


_HERE = _Here()


class Call(ctypes.Structure):
    """As native/steps.cpp has it."""

    _fields_ = (("function", ctypes.c_void_p), ("given", ctypes.c_int64 * MOST_GIVEN))


class Recording:
    """calls: in their order. held: what their addresses point to. strangers: operations of torch that computed
    something meanwhile, which no replay would compute."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.held: list[object] = []
        self.strangers: list[str] = []

    def add(self, function: Any, given: Sequence[int | None]) -> None:
        assert len(given) <= MOST_GIVEN, function
        numbers = [0 if value is None else value for value in given]
        self.calls.append(Call(ctypes.cast(function, ctypes.c_void_p).value, (ctypes.c_int64 * MOST_GIVEN)(*numbers)))

    def whole(self) -> ctypes.Array[Call]:
        return (Call * len(self.calls))(*self.calls)


def call(function: Any, *given: int | None) -> Any:
    """Call native code, and note it where somebody records. given: addresses and whole numbers."""
    for recording in _HERE.recordings:
        recording.add(function, given)
    return function(*given)


def is_recording() -> bool:
    return bool(_HERE.recordings)


def hold(thing: T) -> T:
    """What the next call's addresses point to, beside tensors."""
    for recording in _HERE.recordings:
        recording.held.append(thing)
    return thing


@contextmanager
def recording() -> Iterator[Recording]:
    made = Recording()
    _HERE.recordings.append(made)
    try:
        with _Seen(made):
            yield made
    finally:
        _HERE.recordings.remove(made)


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, made: Recording) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made = made

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in (out if isinstance(out, tuple | list) else (out,)) if isinstance(t, Tensor)]
        self._made.held.extend(tensors)
        name = func.__name__.partition(".")[0]
        if name not in _MAKES_MEMORY and not _only_looks(func, args, tensors):
            self._made.strangers.append(str(func))
        return out


def _only_looks(func: Any, args: Sequence[Any], out: Sequence[Tensor]) -> bool:
    """Whether all of what came out lies in what was given, and none of it was written."""
    given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
    return not func._schema.is_mutable and all(t.untyped_storage().data_ptr() in given for t in out)
