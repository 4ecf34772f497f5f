"""Activation functions, by the names that model configurations use."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.device.base import Device


def gelu_new(x: Tensor) -> Tensor:
    """The tanh approximation of GELU that GPT-2 was trained with."""
    return functional.gelu(x, approximate="tanh")


def gelu(x: Tensor) -> Tensor:
    return functional.gelu(x)


def relu(x: Tensor) -> Tensor:
    return functional.relu(x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu_new": gelu_new, "gelu": gelu, "relu": relu}


def gelu_new_by_row(x: Tensor) -> Tensor:
    """gelu_new of one row after the other. On a CPU torch computes the values that do not fill a vector, at the end of
    every thread's part, with another tanh, so the bits of a value depend on where in the whole it stands."""
    return gelu_new(x) if x.shape[0] == 1 else torch.stack([gelu_new(row) for row in x.unbind()])


def invariant(name: str, device: Device) -> Callable[[Tensor], Tensor]:
    """The version of an activation that gives a row the same bits whatever the other rows are."""
    return gelu_new_by_row if name == "gelu_new" and device.torch_device.type == "cpu" else ACTIVATIONS[name]


def gelu_new_by_hand(x: Tensor) -> Tensor:
    """The definition: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    wide = x.to(torch.float32)
    inner = math.sqrt(2.0 / math.pi) * (wide + 0.044715 * wide.pow(3))
    return (0.5 * wide * (1.0 + torch.tanh(inner))).to(x.dtype)


def gelu_by_hand(x: Tensor) -> Tensor:
    """The definition: x times the normal distribution function at x."""
    wide = x.to(torch.float32)
    return (wide * 0.5 * (1.0 + torch.erf(wide / math.sqrt(2.0)))).to(x.dtype)
