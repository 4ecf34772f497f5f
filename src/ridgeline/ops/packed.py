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
    def of_codes(codes: Tensor, multipliers: Tensor | None, scales: Tensor) -> Packed:
        """From what `codes` gives, and scales [d_out], float32. With multipliers it is a matrix of 4 bits."""
        d_out, d_in = codes.shape
        assert 0 < d_in <= MAX_WIDTH, d_in
        packed = Packed.empty(8 if multipliers is None else 4, d_out, d_in)
        packed.scales.zero_()[:d_out] = scales
        step = max(1, _PIECE // d_in // LANES) * LANES
        for at in range(0, d_out, step):
            some, strips = slice(at, at + step), slice(at // LANES, -(-min(at + step, d_out) // LANES))
            lanes = slice(strips.start * LANES, strips.stop * LANES)
            if multipliers is None:
                integers = _padded(codes[some], CHUNK, 0)
                packed.strips[strips] = _strips_8(integers)
            else:
                wide, by = _padded(codes[some], CHUNK, 8), _padded(multipliers[some], CHUNK // GROUP, 0)
                packed.strips[strips] = _strips_4(wide, by)
                integers = (wide.to(torch.int8) - 8) * (by.repeat_interleave(GROUP, 1).to(torch.int8) + 1)
            packed.sums[lanes] = integers.sum(1, dtype=torch.int32)
        return packed

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
        codes, multipliers = self.codes()
        if multipliers is not None:
            each = multipliers.repeat_interleave(GROUP, 1)[:, : self.d_in].to(torch.int8)
            codes = (codes.to(torch.int8) - 8) * (each + 1)
        return codes

    def codes(self) -> tuple[Tensor, Tensor | None]:
        """The same apart. 8 bits: [d_out, d_in], int8, and None. 4 bits: what codes are above -8, [d_out, d_in], and
        multipliers above 1, [d_out, groups], both uint8, from 0 to 15."""
        count, chunks = self.strips.shape[0], -(-self.d_in // CHUNK)
        if self.bits == 8:
            wide = self.strips.view(torch.int8).view(count, -1, LANES, 4).permute(0, 2, 1, 3)
            return wide.reshape(count * LANES, -1)[: self.d_out, : self.d_in].contiguous(), None
        pairs = self.strips[:, : chunks * 2 * LANES].view(count, -1, LANES)
        multipliers = torch.stack((pairs & 15, pairs >> 4), 2).permute(0, 3, 1, 2)  # [strips, 16, pairs, 2]
        both = self.strips[:, _multiplier_bytes(chunks) :].view(count, -1, LANES, 4)
        wide = torch.stack((both & 15, both >> 4), 2).permute(0, 3, 1, 2, 4)  # [strips, 16, d_in / 8, 2, 4]
        codes = wide.reshape(count * LANES, -1)[: self.d_out, : self.d_in].contiguous()
        groups = -(-self.d_in // GROUP)
        return codes, multipliers.reshape(count * LANES, -1)[: self.d_out, :groups].contiguous()

    def values(self) -> Tensor:
        """[d_out, d_in], float32."""
        return self.integers() * self.scales[: self.d_out, None]


def _pack(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Strips, scales and sums of some outputs."""
    wide = _padded(weight, CHUNK, 0)
    return _pack_8(wide) if bits == 8 else _pack_4(wide)


def _padded(rows: Tensor, columns: int, value: int) -> Tensor:
    """Filled up to whole strips and to a multiple of `columns`."""
    height, width = rows.shape
    return torch.nn.functional.pad(rows, (0, -width % columns, 0, -height % LANES), value=value)


def _pack_8(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scales = weight.abs().amax(1) / 127
    integers = torch.round(weight / _divisor(scales)[:, None]).to(torch.int8)
    return _strips_8(integers), scales, integers.sum(1, dtype=torch.int32)


def rounded_4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """weight: [d_out, d_in] float32, of whole groups. Codes [d_out, d_in] from -8 to 7, multipliers [d_out, groups]
    from 1 to 16, and scales [d_out], all float32."""
    codes, multipliers = _codes(weight)
    flat = (codes * multipliers[..., None]).flatten(1)
    # The best scale for these integers, in the least squares.
    scales = (weight * flat).sum(1) / flat.square().sum(1).clamp(min=1)
    return codes.flatten(1), multipliers, scales


def _pack_4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    codes, multipliers, scales = rounded_4(weight)
    sums = (codes * multipliers.repeat_interleave(GROUP, 1)).sum(1).to(torch.int32)
    strips = _strips_4((codes + 8).to(torch.uint8), (multipliers - 1).to(torch.uint8))
    return strips, scales, sums


def _strips_8(integers: Tensor) -> Tensor:
    """integers: [rows, width], int8, of whole strips and chunks."""
    rows, width = integers.shape
    lines = integers.view(rows // LANES, LANES, width // 4, 4).transpose(1, 2)
    return lines.reshape(rows // LANES, -1).view(torch.uint8)


def _strips_4(codes: Tensor, multipliers: Tensor) -> Tensor:
    """codes: [rows, width], multipliers: [rows, groups], uint8 from 0 to 15, of whole strips and chunks."""
    strips, width = len(codes) // LANES, codes.shape[1]
    head = torch.zeros(strips, _multiplier_bytes(width // CHUNK), dtype=torch.uint8)
    pairs = multipliers.view(strips, LANES, -1, 2)
    head[:, : width // GROUP // 2 * LANES] = (pairs[..., 0] | pairs[..., 1] << 4).transpose(1, 2).flatten(1)
    nibbles = codes.view(strips, LANES, width // 8, 2, 4)
    both = nibbles[:, :, :, 0] | nibbles[:, :, :, 1] << 4  # [strips, 16, d_in / 8, 4]
    return torch.cat((head, both.transpose(1, 2).flatten(1)), 1)


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
