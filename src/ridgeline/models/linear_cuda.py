"""How an NVIDIA GPU holds a model's matrices. Knows one matrix at a time, and how many rows it multiplies; no model.

A step of few rows is a chain of launches, so a norm is not computed when it is asked for: it is handed on, and the
matrix behind it normalises on the way. Many rows go through the library, which pads nothing itself: a vocabulary of
50257 rows is 2.5 to 5 times slower than one of 50304 (records/2026-11-26-probes-h100). There a sum with a residual
waits for the norm behind it: one kernel takes 2.2 us at 256 rows, and two take 4.9 (records/2026-11-26-attention-h100).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from ridgeline.models.linear import DenseEmbedding, Embedding, LinearSpec, Norm, Promise, whole
from ridgeline.models.many_rows import Deferred, Hold, Library, Many, Sum, Unnormed, Widened
from ridgeline.ops import words
from ridgeline.ops.gemv import Choice, FewRows, Layer, LayerNorm, layer
from ridgeline.ops.lazy import Lazy
from ridgeline.ops.sample import greedy
from ridgeline.ops.words import FLOAT8, INT4, INT8, PLAIN, Words

FEW = 8
"""Rows up to which Triton's kernels for few rows multiply, where they pay."""
_SIDES, _LONG = (768, 1280), 2048
_LAYERS: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    PLAIN: ((8, 4, 2), (8, 4, 2)),
    INT8: ((4, 2, 2), (4, 1, 1)),
    FLOAT8: ((4, 2, 2), (4, 1, 1)),
    INT4: ((4, 1, 1), (1, 0, 0)),
}
"""Rows up to which they do on an H100, by the shorter side of a matrix (_SIDES, and more): with rows of up to _LONG
values, and with longer ones. All weights of a program wait in registers, so a long row, a large matrix and many values
in a word cost more for each row of x than they do elsewhere; where registers overflow, up to fifty times as much
(records/2026-11-26-starts-h100). The shorter side is a layer's width, the same for all of its matrices: a layer that
goes both ways loses what each way joins."""
_MANY_OUT, _MANY_VALUES = 16384, 40_000_000
_HEADS: dict[int, tuple[int, int]] = {PLAIN: (2, 1), INT8: (2, 0), FLOAT8: (2, 0), INT4: (1, 0)}
"""The same for a vocabulary: of up to so many values, and of more."""
VOCAB = ("vocab",)
PAD = 64
"""A vocabulary is a multiple of this where the library multiplies."""


def pays_up_to(weight: Words) -> int:
    """Rows that kernels for few rows are the better way for."""
    if weight.d_out > _MANY_OUT:
        return _HEADS[weight.kind][weight.d_in * weight.d_out > _MANY_VALUES]
    return _LAYERS[weight.kind][weight.d_in > _LONG][bisect_left(_SIDES, min(weight.d_in, weight.d_out))]


class CudaLinear:
    """few: kernels for up to `most` rows, looked at in every call, because they may come later."""

    def __init__(self, of: Layer, norm: Norm | None, few: Choice, most: int, many: Many) -> None:
        self._layer, self._norm, self._few, self._most, self._many = of, norm, few, most, many

    def __call__(self, x: Tensor | Unnormed, residual: Promise | None = None) -> Promise:
        kernels = self._kernels(x)
        left = None if residual is None else whole(residual)
        if kernels is not None:
            return kernels.linear(whole(x.x if isinstance(x, Unnormed) else x), self._layer, left)
        y = self._many(x)
        if left is None:
            return y
        return y.add_(left) if self._few.kernels is None else Sum(y, left)

    def _kernels(self, x: Tensor | Unnormed) -> FewRows | None:
        """Those that do all of it, or none."""
        rows, norm = (x.x.shape[0], x.norm) if isinstance(x, Unnormed) else (x.shape[0], None)
        few = self._few.kernels
        return few if few is not None and 0 < rows <= min(self._most, few.most) and norm is self._norm else None


class CudaHead(CudaLinear):
    """Logits, of which those of the padding are cut off: rows may lie apart."""

    def __call__(self, x: Tensor | Unnormed, residual: Promise | None = None) -> Tensor:
        assert residual is None, "nothing is added to logits"
        return whole(super().__call__(x))[:, : self._layer.weight.d_out]

    def greedy(self, x: Tensor | Unnormed) -> tuple[Tensor, Tensor]:
        """Logits [rows, vocab], and the likeliest token of each row as ops.sample.greedy has it, [rows] int64."""
        kernels = self._kernels(x)
        if kernels is not None:
            return kernels.greedy_head(whole(x.x) if isinstance(x, Unnormed) else x, self._layer)
        logits, few = self(x), self._few.kernels
        return logits, greedy(logits) if few is None else few.greedy(logits)


class CudaEmbedding(DenseEmbedding):
    """A table whose rows a kernel looks up together with those of another, if there is one."""

    def __init__(self, weight: Tensor, compute: torch.dtype, few: Choice) -> None:
        super().__init__(weight, compute)
        self._few = few

    def plus(self, ids: Tensor, other: Embedding, places: Tensor) -> Tensor:
        few = self._few.kernels
        if few is None or not isinstance(other, CudaEmbedding):
            return self(ids) + other(places)
        added: Tensor = _SUM_OF_ROWS(self._weight, ids, other._weight, places, self._compute, few.dependent)
        return added


_SUM_OF_ROWS = Lazy("ridgeline.ops.embed_triton", "sum_of_rows")


class CudaDense:
    """Weights as they are. few: kernels for few rows, up to `most`, or none and why."""

    row_invariant = False

    def __init__(self, few: Choice, compute: torch.dtype, most: int = FEW) -> None:
        self._few, self._compute, self._most = few, compute, most
        self.notes: tuple[str, ...] = () if few.kernels is not None else (few.note,)
        self._padded = WeakTensorKeyDictionary()  # a tied head and its embedding share a copy

    def norm(self, weight: Tensor, bias: Tensor, eps: float) -> Norm:
        return Deferred(LayerNorm(weight, bias, eps))

    def embedding(self, weight: Tensor) -> Embedding:
        return CudaEmbedding(self._padded_rows(weight)[: weight.shape[0]], self._compute, self._few)

    def tied(self, spec: LinearSpec, weight: Tensor) -> tuple[Embedding, CudaLinear]:
        return self.embedding(weight), self.linear(spec, weight, None)

    def linear(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> CudaLinear:
        assert weight.shape == (spec.d_out, spec.d_in), f"{spec.name}: {tuple(weight.shape)}"
        assert (bias is not None) == spec.bias, spec.name
        bias = None if bias is None else bias.to(self._compute)
        if spec.parts == VOCAB:
            weight, bias = (
                self._padded_rows(weight),
                None if bias is None else functional.pad(bias, (0, -spec.d_out % PAD)),
            )
        held, many = self._held(spec, weight, bias)
        norm = spec.norm.given if isinstance(spec.norm, Deferred) else None
        of = layer(held.cut(spec.d_out), None if bias is None else bias[: spec.d_out], norm, spec.activation)
        kind = CudaHead if spec.parts == VOCAB else CudaLinear
        return kind(of, spec.norm, self._few, min(self._most, pays_up_to(held)), many)

    def _held(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> tuple[Words, Many]:
        """weight, bias: padded, where they are to be."""
        return words.plain(weight), Library(weight, bias, spec.activation)

    def _padded_rows(self, weight: Tensor) -> Tensor:
        """More rows of zeros, if there have to be."""
        if weight.shape[0] % PAD == 0:
            return weight
        if weight not in self._padded:
            self._padded[weight] = functional.pad(weight, (0, 0, 0, -weight.shape[0] % PAD))
        found: Tensor = self._padded[weight]
        return found


class CudaQuantised(CudaDense):
    """Weights in fewer bits, the embedding as it is. pack: ops.words.QUANTISE. hold: for many rows. notes: of that."""

    def __init__(
        self, pack: Callable[[Tensor], Words], few: Choice, compute: torch.dtype, most: int = FEW,
        hold: Hold = Widened, notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__(few, compute, most)
        self._pack, self._hold = pack, hold
        self.notes += notes

    def _held(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> tuple[Words, Many]:
        packed = self._pack(weight)
        return packed, self._hold(packed, bias, spec.activation, self._compute)
