"""y = residual + activation(x W^T + b) for many rows on a GPU: what its library does in one launch, it does in one."""

from __future__ import annotations

import torch
from torch import Tensor

from ridgeline.ops.activation import ACTIVATIONS

_IN_EPILOGUE = {"gelu_new": True, "relu": False}
"""Activations that cuBLASLt applies to its result; its GELU is the tanh approximation."""


def product(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None, residual: Tensor | None = None
) -> Tensor:
    """x: [rows, d_in]; weight: [d_out, d_in]; bias: [d_out]; residual: [rows, d_out]; all of one format."""
    columns = weight.t()
    if bias is not None and activation in _IN_EPILOGUE and x.is_cuda:
        y = torch._addmm_activation(bias, x, columns, use_gelu=_IN_EPILOGUE[activation])
        return y if residual is None else y.add_(residual)
    y = torch.mm(x, columns) if bias is None else torch.addmm(bias, x, columns)
    if activation is not None:
        y = ACTIVATIONS[activation](y)
    return y if residual is None else y.add_(residual)
