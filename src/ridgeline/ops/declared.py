"""Declared: what kernels that PyTorch's dispatcher does not see say of their operands, to whoever listens. Knows no
kernel, and costs nothing worth counting where nobody listens.

Bytes are those that core/cost and the dispatcher's tally count: every operand once, of a table the rows that are looked
up, of a cache the positions that are attended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

Told = Callable[[int], None]
"""Called with the bytes of a launch."""

_LISTENERS: list[Told] = []


def declare(operand_bytes: Callable[[], int]) -> None:
    """Of one launch. It is only asked for where somebody listens, and may wait for the device then."""
    if not _LISTENERS:
        return
    with _disable_current_modes():
        size = operand_bytes()
    for told in _LISTENERS:
        told(size)


@contextmanager
def listening(told: Told) -> Iterator[None]:
    _LISTENERS.append(told)
    try:
        yield
    finally:
        _LISTENERS.remove(told)


def bytes_of(*tensors: Tensor | None) -> int:
    """As many as their values have, wherever those lie."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def attended(contexts: Tensor, window: int | None) -> int:
    """Positions of all rows. contexts: [rows], less than 1 counts as 1."""
    return int(contexts.clamp(1, window or torch.iinfo(contexts.dtype).max).sum())
