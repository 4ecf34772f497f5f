"""Layer normalisation over the last dimension."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """x: [tokens, d]; weight, bias: [d]. Statistics are computed in float32 whatever the format of x."""
    return functional.layer_norm(x, (x.shape[-1],), weight, bias, eps)


def layer_norm_by_hand(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The definition."""
    wide = x.to(torch.float32)
    mean = wide.mean(-1, keepdim=True)
    variance = (wide - mean).square().mean(-1, keepdim=True)
    return ((wide - mean) / torch.sqrt(variance + eps) * weight + bias).to(x.dtype)


def add_layer_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    total = x + residual
    return total, layer_norm(total, weight, bias, eps)


def add_layer_norm_by_hand(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The definition: the sum, [tokens, d], and what the next half of a block begins with. The sum is rounded first."""
    total = (x.to(torch.float32) + residual.to(torch.float32)).to(x.dtype)
    return total, layer_norm_by_hand(total, weight, bias, eps)
