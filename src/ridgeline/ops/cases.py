"""Cases: random arguments for every operation, and what it costs at that shape. Knows no version of it and no time.

Arguments are drawn on the host, so that they are the same on every device. Costs are those of the algorithm, as in
core/cost.py: what it must read and write once, and the arithmetic; (bytes, FLOP).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from ridgeline.core.cost import Formats
from ridgeline.device.base import Device
from ridgeline.ops.packed import BITS, Packed

Shape = tuple[int, ...]
Inputs = Callable[[Shape, Device, Generator], tuple[Any, ...]]
"""Weights are in the device's `dtype`, activations in its `compute`, logits in float32."""
Cost = Callable[[Shape, Formats], tuple[int, int]]

_FLOAT, _WHOLE = 4, 8  # bytes of a float32 and of an int64
_BIASED, _LIKELIEST, _WRITTEN, _FORBIDDEN = 40, 20, 32, 4  # ids a row: with a bias, asked for, so far, ruled out


def wide(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments with all values of 16 bits in float32, as a definition wants them."""
    short = (torch.bfloat16, torch.float16)
    return tuple(v.to(torch.float32) if isinstance(v, Tensor) and v.dtype in short else v for v in given)


def _normal(generator: Generator, *size: int) -> Tensor:
    return torch.randn(size, generator=generator)


def _whole(generator: Generator, high: int, *size: int) -> Tensor:
    return torch.randint(0, high, size, generator=generator)


def _placed(device: Device, values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(v.to(device.torch_device) if isinstance(v, Tensor) else v for v in values)


def norm_inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
    """shape: (rows, d)."""
    x, weight, bias = (_normal(generator, *size) for size in (shape, shape[1:], shape[1:]))
    return (*_placed(device, tuple(v.to(device.compute) for v in (x * 3 + 1, weight, bias))), 1e-5)


def norm_cost(shape: Shape, formats: Formats) -> tuple[int, int]:
    rows, d = shape
    return (2 * rows * d + 2 * d) * formats.activation_bits // 8, 8 * rows * d


def add_norm_inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
    """shape: (rows, d)."""
    x, weight, bias, eps = norm_inputs(shape, device, generator)
    residual = _normal(generator, *shape).to(device.compute)
    return (x, *_placed(device, (residual,)), weight, bias, eps)


def add_norm_cost(shape: Shape, formats: Formats) -> tuple[int, int]:
    rows, d = shape
    return (4 * rows * d + 2 * d) * formats.activation_bits // 8, 9 * rows * d


def activation_inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
    """shape: (rows, d)."""
    return _placed(device, ((_normal(generator, *shape) * 3).to(device.compute),))


def smooth_cost(shape: Shape, formats: Formats) -> tuple[int, int]:
    """Of an activation with an exponential in it."""
    count = shape[0] * shape[1]
    return 2 * count * formats.activation_bits // 8, 8 * count


def relu_cost(shape: Shape, formats: Formats) -> tuple[int, int]:
    count = shape[0] * shape[1]
    return 2 * count * formats.activation_bits // 8, count


def linear_inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
    """shape: (rows, d_in, d_out). Results are about as large as x."""
    rows, d_in, d_out = shape
    x = _normal(generator, rows, d_in).to(device.compute)
    weight = (_normal(generator, d_out, d_in) / d_in**0.5).to(device.dtype)
    return _placed(device, (x, weight, _normal(generator, d_out).to(device.compute)))


def linear_cost(shape: Shape, formats: Formats) -> tuple[int, int]:
    rows, d_in, d_out = shape
    values = rows * (d_in + d_out) + d_out
    moved = int(d_in * d_out * formats.weight_bits / 8) + values * formats.activation_bits // 8
    return moved, 2 * rows * d_in * d_out + rows * d_out


def packed_inputs(bits: int) -> Inputs:
    """shape: (rows, d_in, d_out), of a matrix of integers: x, its three tensors, bias."""

    def inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
        x, weight, bias = linear_inputs(shape, device, generator)
        packed = Packed.of(weight, bits)
        return x, packed.strips, packed.scales, packed.sums, bias.to(torch.float32)

    return inputs


def packed_cost(bits: int) -> Cost:
    def cost(shape: Shape, formats: Formats) -> tuple[int, int]:
        rows, d_in, d_out = shape
        moved = int(d_in * d_out * BITS[bits] / 8) + 3 * d_out * _FLOAT
        return moved + rows * (d_in + d_out) * formats.activation_bits // 8, 2 * rows * d_in * d_out + rows * d_out

    return cost


def normed_packed_inputs(bits: int) -> Inputs:
    """The same behind a norm: its weight, bias and eps come last."""

    def inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
        x, weight, bias, eps = norm_inputs(shape[:2], device, generator)
        return x, *packed_inputs(bits)(shape, device, generator)[1:], weight, bias, eps

    return inputs


def normed_packed_cost(bits: int) -> Cost:
    def cost(shape: Shape, formats: Formats) -> tuple[int, int]:
        rows, d_in, _ = shape
        moved, flops = packed_cost(bits)(shape, formats)
        return moved + 2 * d_in * formats.activation_bits // 8, flops + 8 * rows * d_in

    return cost


def greedy_inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
    """shape: (rows, vocab), as of all that follow but `uniforms`."""
    return _placed(device, (_logits(shape, generator),))


def greedy_cost(shape: Shape, _: Formats) -> tuple[int, int]:
    return _read(shape) + shape[0] * _WHOLE, shape[0] * shape[1]


def sample_inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
    """No cut: temperature alone, as most requests have it."""
    rows = shape[0]
    temperature = torch.rand(rows, generator=generator) + 0.5
    at = torch.rand(rows, generator=generator, dtype=torch.float64).clamp(min=1e-9)
    return _placed(device, (_logits(shape, generator), temperature, at))


def sample_cost(shape: Shape, _: Formats) -> tuple[int, int]:
    """Five for the softmax, one for the sum over it."""
    return _read(shape) + shape[0] * (_FLOAT + 2 * _WHOLE), 6 * shape[0] * shape[1]


def forbid_inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
    ids = _whole(generator, shape[1], shape[0], _FORBIDDEN)
    ids[:, _FORBIDDEN // 2 :] = -1
    return _placed(device, (_logits(shape, generator), ids))


def forbid_cost(shape: Shape, _: Formats) -> tuple[int, int]:
    return 2 * _read(shape) + shape[0] * _FORBIDDEN * _WHOLE, 0


def penalize_inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
    """Few tokens, so that some come often; what lies from `lengths` on is of a request that left."""
    rows, vocab = shape
    odds = torch.rand(3, rows, generator=generator, dtype=torch.float64) * 2
    lengths = _whole(generator, _WRITTEN - 2, rows) + 1
    prompts = (lengths * torch.rand(rows, generator=generator)).long()
    tokens = _whole(generator, min(vocab, 50), rows, _WRITTEN).to(torch.int32)
    given = (_logits(shape, generator), tokens, lengths, prompts, odds[0] + 0.1, odds[1], odds[2] - 1)
    return _placed(device, given)


def penalize_cost(shape: Shape, _: Formats) -> tuple[int, int]:
    written = shape[0] * _WRITTEN
    return 2 * _read(shape) + written * 4 + shape[0] * 5 * _WHOLE, 5 * written


def add_bias_inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
    rows, vocab = shape
    ids = torch.stack([torch.randperm(vocab, generator=generator)[:_BIASED] for _ in range(rows)])
    values = torch.rand(ids.shape, generator=generator) * 200 - 100
    used = _whole(generator, 2, *ids.shape) > 0
    return _placed(device, (_logits(shape, generator), ids, torch.where(used, values, 0.0)))


def add_bias_cost(shape: Shape, _: Formats) -> tuple[int, int]:
    count = shape[0] * _BIASED
    return 2 * _read(shape) + count * (_WHOLE + _FLOAT), count


def score_inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
    tokens = _whole(generator, shape[1], shape[0])
    return (*_placed(device, (_logits(shape, generator), tokens)), _LIKELIEST)


def score_cost(shape: Shape, _: Formats) -> tuple[int, int]:
    made = _WHOLE + _FLOAT + min(_LIKELIEST, shape[1]) * (_WHOLE + _FLOAT)
    return _read(shape) + shape[0] * made, 5 * shape[0] * shape[1]


def uniforms_inputs(shape: Shape, device: Device, generator: Generator) -> tuple[Any, ...]:
    """shape: (positions,)."""
    seeds = torch.randint(-(1 << 63), (1 << 63) - 1, shape, generator=generator)
    return _placed(device, (seeds, _whole(generator, 1 << 20, *shape)))


def uniforms_cost(shape: Shape, _: Formats) -> tuple[int, int]:
    """The arithmetic is of integers, and no FLOP."""
    return 3 * _WHOLE * shape[0], 0


def _logits(shape: Shape, generator: Generator) -> Tensor:
    return _normal(generator, *shape) * 3


def _read(shape: Shape) -> int:
    """Bytes of the logits."""
    return shape[0] * shape[1] * _FLOAT
