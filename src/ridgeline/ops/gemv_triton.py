"""A product for few rows with everything around it in one Triton kernel. Knows one matrix and a handful of rows.

A step of few rows is a chain of small dependent products: what counts is the time from the last value of one kernel to
the first of the next. So a warp has whole rows of the matrix, 16 bytes a thread and load, and nothing is reduced over
warps; all weights are asked for before the kernel waits for the one before it (programmatic dependent launch); and the
normalisation takes no kernel and no pass of its own: with p = x[0], s = 1 / deviation,

    W LN(x) = s (W g) (x - p) - s mean(x - p) (W g) 1 + W b

where (W g) 1 and W b are computed once, and the sums over x run beside the product. x[0] is no further from the mean
than sqrt(d) deviations (Samuelson 1968), so the one-pass variance loses a factor of d of float32's precision at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ridgeline.ops.declared import bytes_of, declare
from ridgeline.ops.dependent_triton import gdc_launch_dependents, gdc_wait, launch_options
from ridgeline.ops.gemv import Layer
from ridgeline.ops.words import BLOCK, PER, Words

ACTIVATION_NUMBERS: dict[str | None, int] = {None: 0, "gelu_new": 1, "gelu": 2, "relu": 3}
NOWHERE = tl.constexpr(0x7FFFFFFF)


@triton.jit
def activated(y, ACTIVATION: tl.constexpr):
    if ACTIVATION == 1:  # 0.5 y (1 + tanh u) is y times the logistic function at 2 u
        y = y / (1.0 + tl.exp(-1.5957691216057308 * (y + 0.044715 * y * y * y)))
    elif ACTIVATION == 2:
        y = 0.5 * y * (1.0 + tl.erf(y * 0.7071067811865476))
    elif ACTIVATION == 3:
        y = tl.where(y < 0.0, 0.0, y)
    return y


@triton.jit
def comparable(y, real):
    """In float32. What is no number counts as the largest, as it does in torch.argmax."""
    value = y.to(tl.float32)
    return tl.where(value != value, float("inf"), tl.where(real, value, -float("inf")))


@triton.jit
def _loaded(words, row_words, at, D_IN: tl.constexpr, CHUNK: tl.constexpr, PER: tl.constexpr):
    if (PER == 1) and (D_IN % CHUNK != 0):
        word = tl.load(words + row_words + at, mask=at < D_IN, other=0.0)
    else:  # packed words are padded
        word = tl.load(words + row_words + at)
    return word


@triton.jit
def _columns(values, at, D_IN: tl.constexpr, CHUNK: tl.constexpr, PER: tl.constexpr):
    """Some columns of a row; 0 beyond the last."""
    if D_IN % (CHUNK * PER) == 0:
        found = tl.load(values + at)
    else:
        found = tl.load(values + at, mask=at < D_IN, other=0.0)
    return found


@triton.jit
def _unpacked(word, nth, KIND: tl.constexpr):
    """The nth value of each word, in float32."""
    if KIND == 1:
        value = ((word << (8 - 8 * nth)) >> 8).to(tl.float32)
    elif KIND == 2:
        value = ((word << (12 - 4 * nth)) >> 12).to(tl.float32)
    elif KIND == 3:
        value = ((word >> (8 * nth)) & 0xFF).to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float32)
    else:
        value = word.to(tl.float32)
    return value


@triton.jit
def multipliers_at(row, first, WIDE: tl.constexpr):
    """Where the multipliers of WIDE words of some rows are, [rows, WIDE / 8]: as many as threads have 16 bytes of
    words. row: [rows, 1], where its multipliers begin; first: the first of these words in it, a multiple of 64."""
    return row + first // 32 + tl.arange(0, WIDE // 8)[None, :] // 4


@triton.jit
def multiplier(held, nth, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """What the nth value of each of WIDE words is multiplied by, [HIGH, WIDE] float32. held: from multipliers_at. Made
    once for 8 words that a thread has side by side, so that nothing moves between threads."""
    half = tl.arange(0, WIDE // 8)[None, :] // 2 % 2
    each = (((held >> (16 * half + 4 * nth)) & 15) + 1).to(tl.float32)
    return tl.reshape(tl.broadcast_to(each[:, :, None], [HIGH, WIDE // 8, 8]), [HIGH, WIDE])


@triton.jit(do_not_specialize=["rows"])  # as a constant 1 it would take the branch below with it
def _linear(
    x, weight, multipliers, scales, gains, gained, added, residual, out, tops, places,
    rows, d_out, x_stride, residual_stride, out_stride, eps,
    D_IN: tl.constexpr, TOGETHER: tl.constexpr, LOOP: tl.constexpr, HIGH: tl.constexpr, PARTS: tl.constexpr,
    CHUNK: tl.constexpr, CHUNKS: tl.constexpr, PER: tl.constexpr, KIND: tl.constexpr, ACTIVATION: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    """A program: PARTS times HIGH outputs of all rows. TOGETHER: rows whose loads are in flight at once; those above
    `rows` are the last one once more, unwritten. LOOP: there are more. weight: [d_out, CHUNKS * CHUNK] words of PER
    values, which lie CHUNK columns apart.

    Every tile is [HIGH, CHUNK], 16 bytes a thread, so that all have one layout and none has to move between threads;
    x is loaded once for each row of the tile, because a tile of one row would be spread over all warps.
    Nothing is computed from what was loaded before the wait: that would wait for memory first.
    """
    if DEPENDENT:
        gdc_launch_dependents()  # whoever comes next waits for the whole of this kernel
    own = tl.arange(0, HIGH)[:, None]
    first = tl.program_id(0) * HIGH * PARTS + own
    columns = own * 0 + tl.arange(0, CHUNK)[None, :]
    words, by = (), ()
    for part in tl.static_range(PARTS):
        held = tl.minimum(first + part * HIGH, d_out - 1)
        row_words = held * (D_IN if PER == 1 else CHUNKS * CHUNK)
        for nth in tl.static_range(CHUNKS):
            words = words + (_loaded(weight, row_words, nth * CHUNK + columns, D_IN, CHUNK, PER),)
        if multipliers is not None:
            for nth in tl.static_range(CHUNKS):
                by = by + (tl.load(multipliers + multipliers_at(held * (CHUNKS * CHUNK // 32), nth * CHUNK, CHUNK)),)
    gain, sum_gained, plus, scale = (), (), (), ()
    if gains is not None:
        for nth in tl.static_range(CHUNKS * PER):
            gain = gain + (_columns(gains, nth * CHUNK + columns, D_IN, CHUNK, PER),)
    for part in tl.static_range(PARTS):
        held = tl.minimum(first + part * HIGH, d_out - 1)
        if gains is not None:
            sum_gained = sum_gained + (tl.load(gained + held),)
        if added is not None:
            plus = plus + (tl.load(added + held),)
        if scales is not None:
            scale = scale + (tl.load(scales + held),)
    if DEPENDENT:
        gdc_wait()  # nothing that the kernels before wrote has been read so far
    if rows > 0:  # it is: but past a branch the compiler computes nothing from the weights ahead of the wait
        for start in range(0, rows if LOOP else TOGETHER, TOGETHER):
            for also in tl.static_range(TOGETHER):
                row = start + also
                here = tl.minimum(row, rows - 1)
                base = x + here * x_stride
                before = ()
                if residual is not None:
                    for part in tl.static_range(PARTS):
                        there = tl.minimum(first + part * HIGH, d_out - 1)
                        before = before + (tl.load(residual + here * residual_stride + there).to(tl.float32),)
                loaded, values = (), ()
                for nth in tl.static_range(CHUNKS * PER):
                    loaded = loaded + (_columns(base, nth * CHUNK + columns, D_IN, CHUNK, PER),)
                if gains is not None:
                    pivot = tl.load(base).to(tl.float32)
                    sums, squares = tl.zeros([HIGH, CHUNK], tl.float32), tl.zeros([HIGH, CHUNK], tl.float32)
                for nth in tl.static_range(CHUNKS * PER):
                    value = loaded[nth].to(tl.float32)
                    if gains is not None:
                        value -= pivot
                        if D_IN % (CHUNK * PER) != 0:
                            value = tl.where(nth * CHUNK + columns < D_IN, value, 0.0)
                        sums += value
                        squares += value * value
                    values = values + (value,)
                if gains is not None:
                    mean = tl.sum(sums, 1, keep_dims=True) / D_IN
                    variance = tl.maximum(tl.sum(squares, 1, keep_dims=True) / D_IN - mean * mean, 0.0)
                    inverse = tl.rsqrt(variance + eps)
                if tops is not None:
                    top, place = tl.full([HIGH, 1], -float("inf"), tl.float32), first * 1
                for part in tl.static_range(PARTS):
                    dots = tl.zeros([HIGH, CHUNK], tl.float32)
                    for nth in tl.static_range(CHUNKS * PER):
                        tile = _unpacked(words[part * CHUNKS + nth // PER], nth % PER, KIND)
                        if multipliers is not None:
                            tile *= multiplier(by[part * CHUNKS + nth // PER], nth % PER, HIGH, CHUNK)
                        if gains is not None:
                            tile *= gain[nth].to(tl.float32)
                        dots += tile * values[nth]
                    y = tl.sum(dots, 1, keep_dims=True)
                    if scales is not None:
                        y *= scale[part]
                    if gains is not None:
                        y = (y - mean * sum_gained[part]) * inverse
                    if added is not None:
                        y += plus[part]
                    y = activated(y, ACTIVATION)
                    if residual is not None:
                        y += before[part]
                    y = y.to(out.dtype.element_ty)
                    outs = first + part * HIGH
                    real = outs < tl.where(row < rows, d_out, 0)
                    tl.store(out + row * out_stride + outs, y, mask=real)
                    if tops is not None:
                        value = comparable(y, real)
                        place = tl.where(value > top, outs, place)  # of equal ones the first part's
                        top = tl.maximum(top, value)
                if tops is not None:
                    best = tl.max(top, 0, keep_dims=True)
                    mine = tl.zeros([1, 1], tl.int32) + row
                    at = mine * tl.num_programs(0) + tl.program_id(0)
                    tl.store(tops + at, best, mask=mine < rows)
                    lowest = tl.min(tl.where(top == best, place, NOWHERE), 0, keep_dims=True)
                    tl.store(places + at, lowest, mask=mine < rows)


@triton.jit
def _settle(
    tops, places, chosen, parts,
    PARTS: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """The best of a row's parts, the lowest place of equal ones."""
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    row, at = tl.program_id(0), tl.arange(0, PARTS)
    top = tl.load(tops + row * parts + at, mask=at < parts, other=-float("inf"))
    place = tl.load(places + row * parts + at, mask=at < parts, other=NOWHERE)
    best = tl.max(top, 0)
    tl.store(chosen + row, tl.min(tl.where(top == best, place, NOWHERE), 0).to(tl.int64))


@triton.jit
def _best_of(
    logits, tops, places, vocab, readable, stride,
    COLUMNS: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """The best of COLUMNS logits of a row. readable: what may be read of it, `vocab` or more: a multiple of 16 is read
    16 bytes at a time."""
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()
    row, part = tl.program_id(0), tl.program_id(1)
    at = part * COLUMNS + tl.arange(0, COLUMNS)
    value = tl.load(logits + row.to(tl.int64) * stride + at, mask=at < readable, other=0.0)
    value = comparable(value, at < vocab)
    top = tl.max(value, 0)
    place = row * tl.num_programs(1) + part
    tl.store(tops + place, top)
    tl.store(places + place, tl.min(tl.where(value == top, at, NOWHERE), 0))


@dataclass(frozen=True, slots=True)
class Tile:
    """parts: tiles of a program. warps: of a program. span: warps that share a row of the matrix, of plain weights."""

    parts: int = 1
    warps: int = 4
    span: int = 1


Tiling = Callable[[Words, int], Tile]
"""(matrix, rows) -> tile."""

_COLUMNS = 4096
_TOGETHER = 4


def tiling(weight: Words, rows: int) -> Tile:
    """A warp a row of the matrix, so that as much as can be is in flight, while all programs are on the chip at once; a
    vocabulary fills it many times over."""
    if weight.d_out > _LARGE:
        return Tile(parts=4)
    return Tile(parts=2 if rows >= 4 and weight.d_in <= _NARROW else 1)


_LARGE, _NARROW = 16384, 2048  # outputs; values of a row of the matrix: two longer ones exceed a thread's registers


class Kernels:
    """dependent: launch each kernel before the one ahead of it is done, where the GPU can."""

    most = 16

    def __init__(self, dependent: bool, tile_of: Tiling = tiling) -> None:
        self.dependent, self._tile_of = dependent, tile_of
        self._options = launch_options(dependent)

    def linear(self, x: Tensor, layer: Layer, residual: Tensor | None = None) -> Tensor:
        """x: [1 to 16 rows, d_in], values of a row side by side."""
        out = torch.empty(x.shape[0], layer.weight.d_out, dtype=x.dtype, device=x.device)
        self._launch(x, layer, residual, out, None, None)
        return out

    def greedy_head(self, x: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
        rows, vocab = x.shape[0], layer.weight.d_out
        out = torch.empty(rows, vocab, dtype=x.dtype, device=x.device)
        tile = self._tile_of(layer.weight, rows)
        programs = triton.cdiv(vocab, _outputs(layer.weight, tile))
        tops = torch.empty(rows, programs, dtype=torch.float32, device=x.device)
        places = torch.empty(rows, programs, dtype=torch.int32, device=x.device)
        self._launch(x, layer, None, out, tops, places)
        return out, self._settled(tops, places)

    def greedy(self, logits: Tensor) -> Tensor:
        """logits: [rows, vocab], values of a row side by side."""
        rows, vocab = logits.shape
        parts = triton.cdiv(vocab, _COLUMNS)
        declare(lambda: bytes_of(logits))
        tops = torch.empty(rows, parts, dtype=torch.float32, device=logits.device)
        places = torch.empty(rows, parts, dtype=torch.int32, device=logits.device)
        _best_of[(rows, parts)](
            logits, tops, places, vocab, _readable(logits), logits.stride(0),
            COLUMNS=_COLUMNS, DEPENDENT=self.dependent, num_warps=4, **self._options,
        )  # fmt: skip
        return self._settled(tops, places)

    def _settled(self, tops: Tensor, places: Tensor) -> Tensor:
        rows, parts = tops.shape
        chosen = torch.empty(rows, dtype=torch.int64, device=tops.device)
        declare(lambda: bytes_of(tops, places, chosen))
        _settle[(rows,)](
            tops, places, chosen, parts,
            PARTS=triton.next_power_of_2(parts), DEPENDENT=self.dependent, num_warps=4, **self._options,
        )  # fmt: skip
        return chosen

    def _launch(
        self, x: Tensor, layer: Layer, residual: Tensor | None, out: Tensor, tops: Tensor | None, places: Tensor | None
    ) -> None:
        rows, weight = x.shape[0], layer.weight
        assert 0 < rows <= self.most, rows
        assert x.stride(1) == 1 and x.shape[1] == weight.d_in, x.shape  # noqa: PT018
        assert residual is None or residual.stride(1) == 1
        around = (layer.gains, layer.gained, layer.added, residual, tops, places)
        declare(lambda: bytes_of(x, *weight.parts, out, *around))
        tile = self._tile_of(weight, rows)
        per = PER[weight.kind]
        chunk, together = BLOCK * tile.span // per, min(_TOGETHER, triton.next_power_of_2(rows))
        _linear[(triton.cdiv(weight.d_out, _outputs(weight, tile)),)](
            x, *weight.parts, layer.gains, layer.gained, layer.added, residual, out, tops, places,
            rows, weight.d_out, x.stride(0), 0 if residual is None else residual.stride(0), out.stride(0),
            0.0 if layer.norm is None else layer.norm.eps,
            D_IN=weight.d_in, TOGETHER=together, LOOP=rows > together,
            HIGH=tile.warps * per // tile.span, PARTS=tile.parts, CHUNK=chunk,
            CHUNKS=triton.cdiv(weight.d_in, chunk * per), PER=per, KIND=weight.kind,
            ACTIVATION=ACTIVATION_NUMBERS[layer.activation], DEPENDENT=self.dependent,
            num_warps=tile.warps, **self._options,
        )  # fmt: skip


def greedy(logits: Tensor) -> Tensor:
    """As ops.sample.greedy."""
    return Kernels(dependent=False).greedy(logits)


def _readable(logits: Tensor) -> int:
    """Of every row: where rows are padded, the padding too."""
    rows, vocab = logits.shape
    left = logits.untyped_storage().nbytes() // logits.element_size() - logits.storage_offset()
    return logits.stride(0) if vocab <= logits.stride(0) <= left - (rows - 1) * logits.stride(0) else vocab


def _outputs(weight: Words, tile: Tile) -> int:
    """Of a program."""
    return tile.parts * tile.warps * PER[weight.kind] // tile.span
