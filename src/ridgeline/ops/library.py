"""y = activation(x W^T + b) for many rows on a GPU: what its library does in one launch, it does in one."""

from __future__ import annotations

import torch
from torch import Tensor

from ridgeline.ops.activation import ACTIVATIONS

_IN_EPILOGUE = {"gelu_new": True, "relu": False}
"""Activations that cuBLASLt applies to its result; its GELU is the tanh approximation."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """x: [rows, d_in]; weight: [d_out, d_in]; bias: [d_out]; all of one format. Returns a new tensor."""
    columns = weight.t()
    if bias is not None and activation in _IN_EPILOGUE and x.is_cuda:
        return torch._addmm_activation(bias, x, columns, use_gelu=_IN_EPILOGUE[activation])
    y = torch.mm(x, columns) if bias is None else torch.addmm(bias, x, columns)
    return y if activation is None else ACTIVATIONS[activation](y)
