"""A matrix as a GPU's kernels for few rows read it: in 16-bit words of one, two or four values. Knows no product.

In a block of 256 columns the values of a word lie 256 / PER columns apart, so that a thread that has 16 bytes of words
needs whole 16-byte pieces of x as well. Rows are padded with zeros to whole blocks where a word has several values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PLAIN, INT8, INT4, FLOAT8 = 0, 1, 2, 3
PER = {PLAIN: 1, INT8: 2, INT4: 4, FLOAT8: 2}
"""Values in a word."""

BLOCK = 256
GROUP = 128
"""Columns that share a scale in 4 bits. In 8 bits a row has one."""


@dataclass(frozen=True, slots=True)
class Words:
    """words: [d_out, padded d_in / PER], int16, or the values themselves (PLAIN). scales: [d_out, groups] float32, what
    a value is to be multiplied by; None: as they are."""

    words: Tensor
    scales: Tensor | None
    d_in: int
    kind: int

    @property
    def d_out(self) -> int:
        return self.words.shape[0]

    @property
    def groups(self) -> int:
        return 0 if self.scales is None else self.scales.shape[1]

    def cut(self, d_out: int) -> Words:
        """The first rows of it."""
        scales = None if self.scales is None else self.scales[:d_out]
        return Words(self.words[:d_out], scales, self.d_in, self.kind)

    def values(self) -> Tensor:
        """The definition: the matrix in float32, [d_out, d_in]."""
        if self.scales is None:
            return self.words.to(torch.float32)
        per = PER[self.kind]
        blocks = self.words.view(self.d_out, -1, 1, BLOCK // per)
        bits = 16 // per
        shifts = torch.arange(0, 16, bits, device=blocks.device, dtype=torch.int32).view(per, 1)
        raw = (blocks.to(torch.int32) >> shifts) & ((1 << bits) - 1)  # [d_out, blocks, per, 256 / per]
        if self.kind == FLOAT8:
            wide = raw.to(torch.uint8).view(torch.float8_e4m3fn).to(torch.float32)
        else:
            half = 1 << (bits - 1)
            wide = ((raw ^ half) - half).to(torch.float32)
        grouped = wide.reshape(self.d_out, self.groups, -1) * self.scales[..., None]
        return grouped.view(self.d_out, -1)[:, : self.d_in]


def plain(weight: Tensor) -> Words:
    return Words(weight, None, weight.shape[1], PLAIN)


def int8(weight: Tensor) -> Words:
    """A scale a row; -127 to 127."""
    scales, scaled = _scaled(weight, 1, 127.0)
    return _packed(scaled.round().to(torch.int32), scales, weight.shape[1], INT8)


def int4(weight: Tensor) -> Words:
    """A scale for every 128 columns of a row; -7 to 7."""
    scales, scaled = _scaled(weight, -(-weight.shape[1] // BLOCK) * (BLOCK // GROUP), 7.0)
    return _packed(scaled.round().to(torch.int32), scales, weight.shape[1], INT4)


def float8(weight: Tensor) -> Words:
    """e4m3, a scale a row."""
    scales, scaled = _scaled(weight, 1, 448.0)
    return _packed(scaled.to(torch.float8_e4m3fn).view(torch.uint8).to(torch.int32), scales, weight.shape[1], FLOAT8)


QUANTISE: dict[str, Callable[[Tensor], Words]] = {"int8": int8, "int4": int4, "fp8": float8}


def _scaled(weight: Tensor, groups: int, most: float) -> tuple[Tensor, Tensor]:
    """Scales [d_out, groups], and the padded matrix divided by them, at most `most`."""
    padded = functional.pad(weight.to(torch.float32), (0, -weight.shape[1] % BLOCK))
    grouped = padded.view(weight.shape[0], groups, -1)
    scales = grouped.abs().amax(-1) / most
    inverse = torch.where(scales > 0, 1.0 / scales, 0.0)
    return scales, (grouped * inverse[..., None]).clamp(-most, most).view(padded.shape)


def _packed(values: Tensor, scales: Tensor, d_in: int, kind: int) -> Words:
    """values: [d_out, padded d_in] int32, of which the lowest bits count."""
    per = PER[kind]
    bits = 16 // per
    blocks = values.view(values.shape[0], -1, per, BLOCK // per) & ((1 << bits) - 1)
    shifts = torch.arange(0, 16, bits, device=values.device, dtype=torch.int32).view(per, 1)
    words = (blocks << shifts).sum(2, dtype=torch.int32)  # [d_out, blocks, 256 / per]
    return Words(words.to(torch.int16).view(values.shape[0], -1), scales, d_in, kind)
