"""Activation functions, by the names that model configurations use."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def gelu_new(x: Tensor) -> Tensor:
    """The tanh approximation of GELU that GPT-2 was trained with."""
    return functional.gelu(x, approximate="tanh")


def gelu(x: Tensor) -> Tensor:
    return functional.gelu(x)


def relu(x: Tensor) -> Tensor:
    return functional.relu(x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu_new": gelu_new, "gelu": gelu, "relu": relu}


def gelu_new_by_hand(x: Tensor) -> Tensor:
    """The definition: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    wide = x.to(torch.float32)
    inner = math.sqrt(2.0 / math.pi) * (wide + 0.044715 * wide.pow(3))
    return (0.5 * wide * (1.0 + torch.tanh(inner))).to(x.dtype)


def gelu_by_hand(x: Tensor) -> Tensor:
    """The definition: x times the normal distribution function at x."""
    wide = x.to(torch.float32)
    return (wide * 0.5 * (1.0 + torch.erf(wide / math.sqrt(2.0)))).to(x.dtype)


def bias_gelu_new(x: Tensor, bias: Tensor) -> Tensor:
    return gelu_new(x + bias)


def bias_gelu_new_by_hand(x: Tensor, bias: Tensor) -> Tensor:
    """The definition: gelu_new after a product without its bias. x: [tokens, d]; bias: [d]."""
    return gelu_new_by_hand(x.to(torch.float32) + bias.to(torch.float32)).to(x.dtype)
