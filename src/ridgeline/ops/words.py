"""A matrix as a GPU's kernels for few rows read it: in 16-bit words of one, two or four values. Knows no product.

In a block of 256 columns the values of a word lie 256 / PER columns apart, so that a thread that has 16 bytes of words
needs whole 16-byte pieces of x as well. Rows are padded with zeros to whole blocks where a word has several values.

In 4 bits a value is code * multiplier * scale, as a CPU has it (ops/packed.py): 16 columns share a multiplier of 4
bits. A word of 32 bits has the multipliers for 32 words: those of the first 16, one for each value of a word in order,
and those of the next 16. A thread that has 8 words needs half of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.ops.packed import GROUP, rounded_4

PLAIN, INT8, INT4, FLOAT8 = 0, 1, 2, 3
PER = {PLAIN: 1, INT8: 2, INT4: 4, FLOAT8: 2}
"""Values in a word."""

BLOCK = 256
_PIECE = 1 << 24  # values that are rounded at once: each takes some 40 bytes meanwhile


@dataclass(frozen=True, slots=True)
class Words:
    """words: [d_out, padded d_in / PER], int16, or the values themselves (PLAIN). scales: [d_out, 1] float32, what a
    row is to be multiplied by; None: as it is. multipliers: [d_out, 2 blocks] int32, of 4 bits."""

    words: Tensor
    scales: Tensor | None
    d_in: int
    kind: int
    multipliers: Tensor | None = None

    @property
    def d_out(self) -> int:
        return self.words.shape[0]

    @property
    def parts(self) -> tuple[Tensor | None, ...]:
        """All that is held, and read by a product."""
        return self.words, self.multipliers, self.scales

    def cut(self, d_out: int) -> Words:
        """The first rows of it."""
        words, multipliers, scales = (None if part is None else part[:d_out] for part in self.parts)
        assert words is not None
        return Words(words, scales, self.d_in, self.kind, multipliers)

    def values(self) -> Tensor:
        """The definition: the matrix in float32, [d_out, d_in]."""
        if self.scales is None:
            return self.words.to(torch.float32)
        raw = _fields(self.words.view(self.d_out, -1, 1, BLOCK // PER[self.kind]), 16 // PER[self.kind])
        if self.kind == FLOAT8:
            wide = raw.to(torch.uint8).view(torch.float8_e4m3fn).to(torch.float32)
        else:
            half = 1 << (16 // PER[self.kind] - 1)
            wide = ((raw ^ half) - half).to(torch.float32)
        if self.multipliers is not None:
            each = _fields(self.multipliers.view(torch.int16).view(self.d_out, -1, 1, BLOCK // 4 // GROUP), 4)
            wide *= each.add_(1).repeat_interleave(GROUP, -1)
        return wide.view(self.d_out, -1)[:, : self.d_in] * self.scales


def _fields(words: Tensor, bits: int) -> Tensor:
    """words: [d_out, blocks, 1, n] int16. Of each its fields of so many bits, the lowest first,
    [d_out, blocks, 16 / bits, n] int32."""
    shifts = torch.arange(0, 16, bits, device=words.device, dtype=torch.int32).view(-1, 1)
    return (words.to(torch.int32) >> shifts) & ((1 << bits) - 1)


def plain(weight: Tensor) -> Words:
    return Words(weight, None, weight.shape[1], PLAIN)


def int8(weight: Tensor) -> Words:
    """A scale a row; -127 to 127."""
    scales, scaled = _scaled(weight, 127.0)
    return Words(_packed(scaled.round().to(torch.int32), INT8), scales, weight.shape[1], INT8)


def int4(weight: Tensor) -> Words:
    """A scale a row, and a multiplier for every 16 columns of it; -8 to 7."""
    words, multipliers, scales = [], [], []
    for some in torch.split(weight, max(1, _PIECE // weight.shape[1])):
        codes, by, scale = rounded_4(_padded(some))
        words.append(_packed(codes.to(torch.int32), INT4))
        # [d_out, blocks, 4 values of a word, 4 sixteens of words]
        fields = (by - 1).to(torch.int32).view(len(some), -1, 4, BLOCK // 4 // GROUP)
        multipliers.append(_joined(fields).view(len(some), -1).view(torch.int32))
        scales.append(scale[:, None])
    return Words(torch.cat(words), torch.cat(scales), weight.shape[1], INT4, torch.cat(multipliers))


def float8(weight: Tensor) -> Words:
    """e4m3, a scale a row."""
    scales, scaled = _scaled(weight, 448.0)
    raw = scaled.to(torch.float8_e4m3fn).view(torch.uint8).to(torch.int32)
    return Words(_packed(raw, FLOAT8), scales, weight.shape[1], FLOAT8)


QUANTISE: dict[str, Callable[[Tensor], Words]] = {"int8": int8, "int4": int4, "fp8": float8}


def _padded(weight: Tensor) -> Tensor:
    return functional.pad(weight.to(torch.float32), (0, -weight.shape[1] % BLOCK))


def _scaled(weight: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """Scales [d_out, 1], and the padded matrix divided by them, at most `most`."""
    padded = _padded(weight)
    scales = padded.abs().amax(-1, keepdim=True) / most
    inverse = torch.where(scales > 0, 1.0 / scales, 0.0)
    return scales, (padded * inverse).clamp(-most, most)


def _packed(values: Tensor, kind: int) -> Tensor:
    """values: [d_out, padded d_in] int32, of which the lowest bits count."""
    blocks = values.view(values.shape[0], -1, PER[kind], BLOCK // PER[kind])
    return _joined(blocks).view(values.shape[0], -1)


def _joined(fields: Tensor) -> Tensor:
    """The inverse of _fields, [d_out, blocks, n] int16."""
    bits = 16 // fields.shape[2]
    shifts = torch.arange(0, 16, bits, device=fields.device, dtype=torch.int32).view(-1, 1)
    return ((fields & ((1 << bits) - 1)) << shifts).sum(2, dtype=torch.int32).to(torch.int16)
