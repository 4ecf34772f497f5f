"""Packed: a matrix of integers of 8 or 4 bits in the order that ops/native reads it, and what it stands for.

A weight is an integer of 8 bits times a scale of its output. With 4 bits that integer is code * multiplier, the code
from -8 to 7 and the multiplier (1 to 16, in 4 bits) of 16 inputs, so that 4.25 bits are stored but sums over all
inputs stay sums of integers: exact, and one multiplication by a scale an output. Two levels of scales are the idea of
QServe (Lin et al. 2024). The order of bytes is told in native/dots.h.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LANES, CHUNK, GROUP, LINE = 16, 64, 16, 64
MAX_WIDTH = 32768
"""Inputs at most: 255 * 128 of each, twice, must fit 32 bits."""
BITS = {8: 8.0, 4: 4.0 + 4.0 / GROUP}
"""Bits that a weight occupies, by the bits of its code; without the two numbers of each output."""

_PIECE = 1 << 19  # values that are quantised at once, so that they stay in the cache
_MOST = 16  # 16 * 7 and 16 * -8 still fit 8 bits


@dataclass(frozen=True, slots=True)
class Packed:
    """strips: bytes [outputs / 16, ...]. scales and sums (of an output's integers) have a value for every output of
    every strip, float32 and int32."""

    bits: int
    d_out: int
    d_in: int
    strips: Tensor
    scales: Tensor
    sums: Tensor

    @property
    def num_bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in (self.strips, self.scales, self.sums))

    @staticmethod
    def of(weight: Tensor, bits: int) -> Packed:
        """weight: [d_out, d_in], of any format."""
        assert bits in BITS, bits
        d_out, d_in = weight.shape
        assert 0 < d_in <= MAX_WIDTH, d_in
        step = max(1, _PIECE // d_in // LANES) * LANES
        parts = [_pack(weight[at : at + step].to(torch.float32), bits) for at in range(0, d_out, step)]
        strips, scales, sums = (torch.cat(part) for part in zip(*parts, strict=True))
        return Packed(bits, d_out, d_in, strips, scales, sums)

    @staticmethod
    def empty(bits: int, d_out: int, d_in: int) -> Packed:
        """For somebody else to fill."""
        assert bits in BITS, bits
        assert 0 < d_in <= MAX_WIDTH, d_in
        count, chunks = -(-d_out // LANES), -(-d_in // CHUNK)
        whole = chunks * CHUNK * LANES
        size = whole if bits == 8 else _multiplier_bytes(chunks) + whole // 2
        scales, sums = torch.empty(count * LANES), torch.empty(count * LANES, dtype=torch.int32)
        return Packed(bits, d_out, d_in, torch.empty(count, size, dtype=torch.uint8), scales, sums)

    def integers(self) -> Tensor:
        """[d_out, d_in], int8: what the scales multiply."""
        count, chunks = self.strips.shape[0], -(-self.d_in // CHUNK)
        if self.bits == 8:
            lines = self.strips.view(torch.int8).view(count, -1, LANES, 4)
        else:
            begin = _multiplier_bytes(chunks)
            pairs = self.strips[:, : chunks * 2 * LANES].view(count, -1, 1, LANES)
            multipliers = torch.cat((pairs & 15, pairs >> 4), 2).to(torch.int8) + 1  # [.., 2, 16]
            both = self.strips[:, begin:].view(count, -1, 1, LANES, 4)
            codes = torch.cat((both & 15, both >> 4), 2).to(torch.int8) - 8  # [.., 2, 16, 4], of 8 inputs
            grouped = codes.view(count, -1, GROUP // 4, LANES, 4)
            lines = (grouped * multipliers.view(count, -1, 1, LANES, 1)).view(count, -1, LANES, 4)
        wide = lines.permute(0, 2, 1, 3).reshape(count * LANES, -1)
        return wide[: self.d_out, : self.d_in].contiguous()

    def values(self) -> Tensor:
        """[d_out, d_in], float32."""
        return self.integers() * self.scales[: self.d_out, None]


def _pack(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Strips, scales and sums of some outputs."""
    rows, width = -(-weight.shape[0] // LANES) * LANES, -(-weight.shape[1] // CHUNK) * CHUNK
    wide = torch.nn.functional.pad(weight, (0, width - weight.shape[1], 0, rows - weight.shape[0]))
    return _pack_8(wide) if bits == 8 else _pack_4(wide)


def _pack_8(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scales = weight.abs().amax(1) / 127
    integers = torch.round(weight / _divisor(scales)[:, None]).to(torch.int8)
    strips = integers.view(-1, LANES, weight.shape[1] // 4, 4).permute(0, 2, 1, 3).reshape(len(weight) // LANES, -1)
    return strips.view(torch.uint8), scales, integers.sum(1, dtype=torch.int32)


def _pack_4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    codes, multipliers = _codes(weight)
    rows, groups = multipliers.shape
    integers = codes * multipliers[..., None]  # [rows, groups, 16]
    flat = integers.flatten(1)
    # The best scale for these integers, in the least squares.
    scales = (weight * flat).sum(1) / flat.square().sum(1).clamp(min=1)
    chunks, strips = groups * GROUP // CHUNK, rows // LANES
    head = torch.zeros(strips, _multiplier_bytes(chunks), dtype=torch.uint8)
    halves = (multipliers - 1).to(torch.uint8).view(strips, LANES, groups // 2, 2)
    head[:, : groups // 2 * LANES] = (halves[..., 0] | halves[..., 1] << 4).transpose(1, 2).flatten(1)
    nibbles = (codes + 8).to(torch.uint8).view(strips, LANES, groups * GROUP // 8, 2, 4)
    both = nibbles[:, :, :, 0] | nibbles[:, :, :, 1] << 4  # [strips, 16, d_in / 8, 4]
    return torch.cat((head, both.transpose(1, 2).flatten(1)), 1), scales, flat.sum(1).to(torch.int32)


def _codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [rows, groups, 16] and multipliers [rows, groups], as float32. Of the multipliers around the one that just
    holds a group's largest value the one with the least squared error is taken: cutting a peak may be worth it."""
    groups = weight.view(len(weight), -1, GROUP)
    step = torch.maximum(groups.amax(2) / 7, groups.amin(2) / -8).clamp(min=0)  # [rows, groups]
    base = _divisor(step.amax(1, keepdim=True) / _MOST)
    whole = torch.round(step / base)
    best = codes = multipliers = torch.empty(0)
    for away in (0, 1, -1, -2, -3):
        tried = (whole + away).clamp(1, _MOST)
        unit = (tried * base)[..., None]
        found = torch.round(groups / unit).clamp_(-8, 7)
        error = (groups - found * unit).square_().sum(2)
        if away == 0:
            best, codes, multipliers = error, found, tried
            continue
        better = error < best
        best = torch.where(better, error, best)
        codes = torch.where(better[..., None], found, codes)
        multipliers = torch.where(better, tried, multipliers)
    return codes, multipliers


def _divisor(scales: Tensor) -> Tensor:
    """1 where a scale is 0: all its values are."""
    return torch.where(scales > 0, scales, 1.0)


def _multiplier_bytes(chunks: int) -> int:
    return -(-chunks * 2 * LANES // LINE) * LINE
