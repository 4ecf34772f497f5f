"""Attention that writes its scores to memory against attention that does not. Knows torch's own; knows no page."""

from __future__ import annotations

import math
import time
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ridgeline.lab.learn.chapter import Figures, Found, Place

if TYPE_CHECKING:
    from ridgeline.device.base import Device

HEADS, HEAD_DIM = 12, 64
LENGTHS = (128, 256, 512, 1024, 2048)
ROUNDS = 5


def written(place: Place) -> Found:
    """Time and bytes of both over prompts of several lengths, float32, causal, one sequence."""
    device = place.bench.loaded.device
    rows, ratio = [], 1.0
    for done, length in enumerate(LENGTHS):
        place.progress(f"{length} tokens", done, len(LENGTHS))
        plain_ns, fused_ns = timed(device, length)
        ratio = plain_ns / fused_ns
        rows.append(
            (
                f"{length:,}",
                f"{bytes_of(length, writes_scores=True) / 1e6:,.1f}",
                f"{bytes_of(length, writes_scores=False) / 1e6:,.1f}",
                f"{plain_ns / 1e6:.2f}",
                f"{fused_ns / 1e6:.2f}",
                f"{ratio:.1f}x",
            )
        )
    last = LENGTHS[-1]
    moved = bytes_of(last, writes_scores=True) / bytes_of(last, writes_scores=False)
    told = (
        f"At {last:,} tokens the attention that keeps its scores on the chip is {ratio:.1f} times as fast; it moves "
        f"{moved:.0f} times fewer bytes, and half of the scores, those above the diagonal, it need not compute.",
        "Both do the same arithmetic otherwise and give the same result up to rounding: FlashAttention (Dao et al. "
        "2022) saves traffic, not operations. While scores fit a cache there is little to save.",
    )
    columns = ("tokens", "MB with scores", "MB without", "with, ms", "without, ms", "gain")
    return Found(ratio, Figures(columns, tuple(rows)), told)


def bytes_of(length: int, *, writes_scores: bool) -> int:
    """Of float32: queries, keys, values and the result once; scores written and read by each of scaling with mask,
    softmax and the product with the values."""
    operands = 4 * HEADS * length * HEAD_DIM * 4
    scores = HEADS * length * length * 4
    return operands + (6 * scores if writes_scores else 0)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As the formula stands: softmax(q k^T / sqrt(d) + mask) v, every intermediate result a tensor."""
    length = q.shape[-2]
    mask = torch.full((length, length), -math.inf, device=q.device).triu(1)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask
    return scores.softmax(-1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def timed(device: Device, length: int) -> tuple[float, float]:
    """Nanoseconds of each, medians of rounds in turn. Raises AssertionError where they disagree."""
    made = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(1, HEADS, length, HEAD_DIM, generator=made).to(device.torch_device) for _ in range(3))
    spent: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        assert torch.allclose(plain(q, k, v), fused(q, k, v), atol=2e-2), "two ways to one result differ"
        for _ in range(ROUNDS):
            for attend, times in zip((plain, fused), spent, strict=True):
                device.synchronize()
                begun = time.perf_counter_ns()
                attend(q, k, v)
                device.synchronize()
                times.append(float(time.perf_counter_ns() - begun))
    return median(spent[0]), median(spent[1])
