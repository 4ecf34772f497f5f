"""Lines: rows of logits that all begin at the same place of a line of memory."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

_VALUES = 32
"""Of float32 in a GPU's line of 128 bytes."""


def whole_lines(rows: Tensor) -> Tensor:
    """rows: [rows, n]. On a GPU with as many columns of -inf more as fill the last line, [rows, whole lines].

    torch's softmax on a GPU reads four values at once from the first aligned one on. With a vocabulary of 50257, rows
    begin at four different places, and how a row is added up depends on where in the batch it is. A CPU adds up every
    row the same way, and is spared the copy.
    """
    missing = -rows.shape[-1] % _VALUES
    if rows.device.type == "cpu" or not missing:
        return rows
    return functional.pad(rows, (0, missing), value=float("-inf"))
