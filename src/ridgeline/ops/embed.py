"""A sum of two looked-up rows: the definition, and its kernel where kernels run."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sum_of_rows(first: Tensor, ids: Tensor, second: Tensor, places: Tensor, dtype: torch.dtype) -> Tensor:
    """The definition. first, second: tables [.., d]; ids, places: [rows]. Returns first[ids] + second[places],
    [rows, d], each of them in `dtype` before they are added."""
    return functional.embedding(ids, first).to(dtype) + functional.embedding(places, second).to(dtype)
