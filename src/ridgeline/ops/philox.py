"""Counter-based random numbers: the n-th number of a seed, without computing those before it.

Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: Tensor, key: tuple[Tensor, Tensor]) -> Tensor:
    """counter: [n, 4], key: two words, each [n] or of one for all; words are 32 bits wide and held in int64.

    Returns [n, 4] random words of 32 bits.
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return torch.stack((c0, c1, c2, c3), -1)


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """One number in (0, 1) for each position of a request with a 64-bit seed. positions: [n] int64; float64 out.

    seeds: [n] or of one for all, their 64 bits as int64 (see `seed_bits`).
    32 random bits and a half: never 0, never 1, and the same on every device.
    """
    zero = torch.zeros_like(positions)
    counter = torch.stack((positions & _MASK, positions >> 32, zero, zero), -1)  # [n, 4]
    words = philox(counter, (seeds & _MASK, (seeds >> 32) & _MASK))[:, 0]
    return (words.to(torch.float64) + 0.5) * 2.0**-32


def seed_bits(seed: int) -> int:
    """A seed from 0 to 2^64 - 1 as the signed integer of the same bits."""
    return seed - (1 << 64) if seed >= 1 << 63 else seed


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low word of the 64-bit product of two 32-bit words.

    In two halves of b, because the whole product does not fit the positive half of int64.
    """
    upper = a * (b >> 16) + ((a * (b & 0xFFFF)) >> 16)  # below 2^49
    return upper >> 16, (a * b) & _MASK  # the low word is right even where the product wraps
