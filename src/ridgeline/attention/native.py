"""Native attention: a paged cache on a CPU, read once at the speed of memory by a kernel compiled for this machine.

Knows no request; what the kernel does stands in native/attention.cpp.

One call a layer appends the new keys and values (rounded or quantised) and attends. What is the same for all layers is
laid out once in `plan`, so that a layer costs the host a few microseconds.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ridgeline.attention.base import CannotAttend, score_scale
from ridgeline.attention.batch import Batch
from ridgeline.core.spec import ModelSpec
from ridgeline.core.types import Ints
from ridgeline.device import jit, pages
from ridgeline.device.base import Device
from ridgeline.device.recording import call, hold, is_recording
from ridgeline.device.team import team
from ridgeline.ops import calls
from ridgeline.ops.declared import bytes_of, declare

SOURCE = Path(__file__).parent / "native" / "attention.cpp"
SPLIT, ROWS, MOST_DIM, LANES = 256, 32, 256, 16
"""As in the kernel: keys of a split, queries of an item at most, values of a head at most and as a multiple of what."""
LOG2_E = 1.4426950408889634
_LINE = 64  # bytes of a line of the processor's caches

# Of a stored format: its number in the kernel, neighbours that lie together, and whether it has scales.
_FORMATS = {
    torch.float32: (0, 1, False),
    torch.bfloat16: (1, 2, False),
    torch.float16: (2, 2, False),
    torch.int8: (3, 2, True),
}
_ITEM = np.dtype(
    [("row", "i4"), ("token", "i4"), ("count", "i4"), ("split", "i4"), ("splits", "i4"), ("left", "i4"), ("at", "i8")]
)


def _fields(kind: Any, *names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names]


class _Store(ctypes.Structure):
    _fields_ = (
        *_fields(ctypes.c_int32, "heads", "group", "dim", "block_size", "format", "unused"),
        *_fields(ctypes.c_int64, "cell_bytes", "value_at", "scale_at", "positions"),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        *_fields(ctypes.c_void_p, "items", "positions", "writes", "tables", "partial", "left", "team"),
        *_fields(ctypes.c_int64, "table_width", "tokens"),
        *_fields(ctypes.c_int32, "num_items", "single"),
    )


class _Tensors(ctypes.Structure):
    _fields_ = (
        *_fields(ctypes.c_void_p, "q", "k", "v", "out", "cache"),
        *_fields(ctypes.c_int64, "q_token", "q_head", "k_token", "k_head", "v_token", "v_head"),
        ("scale", ctypes.c_float),
        ("is_bfloat16", ctypes.c_int32),
    )


@dataclass(frozen=True, slots=True)
class NativeMeta:
    """The kernel's view of a batch, and what its addresses point to. attended: cached positions of all rows."""

    batch: _Batch
    held: tuple[object, ...]
    attended: int


@dataclass(frozen=True, slots=True)
class Cell:
    """What a block holds of one head, in bytes: keys, values from value_at on, scales from scale_at on."""

    value_at: int
    scale_at: int
    size: int

    @staticmethod
    def of(head_dim: int, block_size: int, dtype: torch.dtype) -> Cell:
        _, unit, scaled = _FORMATS[dtype]
        value_at = _whole_lines(block_size * head_dim * dtype.itemsize)
        scale_at = value_at + _whole_lines(-(-block_size // unit) * unit * head_dim * dtype.itemsize)
        return Cell(value_at, scale_at, scale_at + (_whole_lines(8 * block_size) if scaled else 0))


class CellStore:
    """Keys and values of each layer in cells, one a block and head (native/store.h). The last block is for padding."""

    def __init__(self, heads: int, head_dim: int, layers: int, num_blocks: int, block_size: int, dtype: torch.dtype):
        self._heads, self._dim, self._size, self._dtype = heads, head_dim, block_size, dtype
        self.block_size = block_size
        number, self._unit, self._scaled = _FORMATS[dtype]
        self._cell = Cell.of(head_dim, block_size, dtype)
        shape = (num_blocks + 1, heads, self._cell.size)
        self.layers = [pages.zeros(math.prod(shape)).view(shape) for _ in range(layers)]
        self.layout = _Store(
            heads, 1, head_dim, block_size, number, 0,
            self._cell.size, self._cell.value_at, self._cell.scale_at, num_blocks * block_size,
        )  # fmt: skip

    def read(self, layer: int, block_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        cells = self.layers[layer][list(block_ids)]  # [blocks, heads, cell_bytes]
        size, dim, unit, count = self._size, self._dim, self._unit, len(cells)
        pairs = -(-size // unit)
        keys = self._values(cells, 0, size * dim).view(count, self._heads, dim // unit, size, unit)
        values = self._values(cells, self._cell.value_at, pairs * unit * dim).view(count, self._heads, pairs, dim, unit)
        k = keys.permute(0, 3, 1, 2, 4).reshape(count, size, self._heads, dim)
        v = values.permute(0, 2, 4, 1, 3).reshape(count, pairs * unit, self._heads, dim)[:, :size]
        if self._scaled:
            at = self._cell.scale_at
            scales = cells[..., at : at + 8 * size].contiguous().view(torch.float32)  # [blocks, heads, 2 * size]
            k, v = (
                x.float() * s.transpose(1, 2)[..., None]
                for x, s in zip((k, v), torch.split(scales, size, -1), strict=True)
            )
        return k.flatten(0, 1), v.flatten(0, 1)

    def write(self, layer: int, at: Tensor, k: Tensor, v: Tensor) -> None:
        """As the kernel does, in plain torch. at: [tokens]; k, v: [tokens, heads, head_dim]. Not where there are
        scales."""
        assert not self._scaled, "how values are rounded to 8 bits is the kernel's"
        cells, unit, size, dim, heads = self.layers[layer], self._unit, self._size, self._dim, self._heads
        block, offset, wide = at // size, at % size, self._dtype.itemsize
        keys = cells[..., : size * dim * wide].view(self._dtype).view(-1, heads, dim // unit, size, unit)
        keys[block, :, :, offset] = k.reshape(-1, heads, dim // unit, unit).to(self._dtype)
        pairs, first = -(-size // unit), self._cell.value_at
        values = cells[..., first : first + pairs * unit * dim * wide].view(self._dtype)
        values.view(-1, heads, pairs, dim, unit)[block, :, offset // unit, :, offset % unit] = v.to(self._dtype)

    def _values(self, cells: Tensor, start: int, count: int) -> Tensor:
        return cells[..., start : start + count * self._dtype.itemsize].contiguous().view(self._dtype)


def _whole_lines(size: int) -> int:
    return -(-size // _LINE) * _LINE


class Native:
    """A kernel compiled for this CPU reads every cached key and value once.

    library: of `build`. group: heads of queries to each head of keys.
    """

    row_invariant = True
    prefers = 16
    ready = True
    """Whether the kernel attends."""

    def __init__(self, library: ctypes.CDLL, group: int = 1) -> None:
        self._prepare(group)
        self._bind(library)

    def _prepare(self, group: int) -> None:
        self._group = group
        self._partial = torch.empty(0)
        self._left = torch.zeros(0, dtype=torch.int32)

    def _bind(self, library: ctypes.CDLL) -> None:
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._library, self._run, self._lay = library, library.ridgeline_attention, library.ridgeline_attention_rows
        self._run.argtypes, self._run.restype = [pointer] * 3, ctypes.c_int
        self._lay.argtypes, self._lay.restype = [pointer, pointer, pointer, size, size], ctypes.c_int

    @staticmethod
    def open(spec: ModelSpec, dtype: torch.dtype, device: Device, cache: Path | None) -> Native:
        Native.suits(spec, dtype, device)
        try:
            return Native(build(cache))
        except jit.CannotBuild as error:
            raise CannotAttend(f"native attention cannot be compiled: {error}") from error

    @staticmethod
    def open_soon(spec: ModelSpec, dtype: torch.dtype, device: Device, cache: Path | None) -> Native:
        """As `open`, but without waiting for a compiler where plain torch can attend meanwhile."""
        from ridgeline.attention.native_soon import Soon

        Native.suits(spec, dtype, device)
        source = jit.source_of(SOURCE)
        try:
            compiler, scaled = jit.Compiler.find(language=jit.CPP), _FORMATS[dtype][2]
            building = None if cache is None or scaled else jit.begin(source, cache, compiler)
        except jit.CannotBuild as error:
            raise CannotAttend(f"native attention cannot be compiled: {error}") from error
        return Native.open(spec, dtype, device, cache) if building is None else Soon(building)

    @staticmethod
    def suits(spec: ModelSpec, dtype: torch.dtype, device: Device) -> None:
        """Raises CannotAttend."""
        if device.torch_device.type != "cpu":
            raise CannotAttend("native attention runs on a CPU only")
        if spec.head_dim % LANES or spec.head_dim > MOST_DIM:
            raise CannotAttend(
                f"native attention takes heads of a multiple of {LANES} values, up to {MOST_DIM}; this model's have "
                f"{spec.head_dim}"
            )
        if dtype not in _FORMATS:
            raise CannotAttend(f"native attention keeps no {str(dtype).removeprefix('torch.')}")

    def allows(self, block_size: int) -> bool:
        return block_size >= 1

    def block_bytes(self, spec: ModelSpec, block_size: int, dtype: torch.dtype) -> int:
        heads = spec.heads // self._group
        return spec.layers * heads * Cell.of(spec.head_dim, block_size, dtype).size

    def scale_bits(self, dtype: torch.dtype) -> int:
        return 32 if _FORMATS[dtype][2] else 0

    def store(self, spec: ModelSpec, num_blocks: int, block_size: int, dtype: torch.dtype, device: Device) -> CellStore:
        assert device.torch_device.type == "cpu"
        assert spec.head_dim % LANES == 0, spec.head_dim
        assert spec.head_dim <= MOST_DIM, spec.head_dim
        assert self._group <= ROWS, self._group
        heads = spec.heads // self._group
        self._store = CellStore(heads, spec.head_dim, spec.layers, num_blocks, block_size, dtype)
        self._layout = self._store.layout
        self._layout.group = self._group
        self._layout_at = ctypes.addressof(self._layout)
        self._position_bytes = heads * self._layout.cell_bytes // block_size
        self._caches = [layer.data_ptr() for layer in self._store.layers]
        self._scales = [score_scale(spec, layer) * LOG2_E for layer in range(spec.layers)]
        self._given = _Tensors()
        self._strides: tuple[object, ...] = ()
        return self._store

    def plan(self, batch: Batch, into: NativeMeta | None = None) -> NativeMeta:
        assert into is None, "nothing is captured on a CPU"
        counts = np.diff(batch.query_starts)
        items, rows_left, floats = self._items(batch, counts)
        if self._left.shape[0] < rows_left * self._layout.heads:
            self._left = torch.zeros(2 * rows_left * self._layout.heads, dtype=torch.int32)
        if self._partial.shape[0] < floats:
            self._partial = torch.empty(2 * floats)
        tables, positions, writes = (t.contiguous() for t in (batch.block_tables, batch.positions, batch.writes))
        assert (tables.dtype, positions.dtype, writes.dtype) == (torch.int32, torch.int64, torch.int64)
        made = _Batch(
            items.ctypes.data, positions.data_ptr(), writes.data_ptr(), tables.data_ptr(), self._partial.data_ptr(),
            self._left.data_ptr(), team(self._library), tables.shape[1], positions.shape[0], len(items),
            int(counts.max() == 1),
        )  # fmt: skip
        held = items, positions, writes, tables, self._partial, self._left
        return NativeMeta(made, held, int(batch.contexts.sum()))

    def plan_rows(self, rows: Tensor, positions: Tensor, writes: Tensor, tables: Tensor, longest: int) -> NativeMeta:
        """Of rows with one query each, laid out by native code, so that the call can be recorded.

        rows: [rows] int64, which row of `tables` [.., width] int32 is each one's; positions, writes: [rows] int64, as
        in Batch. All are read when the call is made. longest: positions that a row attends at most.
        """
        count, most = len(rows), -(-longest // SPLIT)
        items = np.zeros(count * most, _ITEM)
        partial = torch.empty(count * most * self._layout.heads * self._group * (self._layout.dim + 2))
        left = np.zeros(count * self._layout.heads, np.int32)
        made = _Batch(
            items.ctypes.data, positions.data_ptr(), writes.data_ptr(), tables.data_ptr(), partial.data_ptr(),
            left.ctypes.data, team(self._library), tables.shape[1], count, 0, 1,
        )  # fmt: skip
        meta = hold(NativeMeta(made, (items, positions, writes, tables, partial, left, rows), count * longest))
        call(self._lay, self._layout_at, ctypes.addressof(made), rows.data_ptr(), count, most)
        return meta

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, meta: NativeMeta) -> Tensor:
        if (q.stride(), k.stride(), v.stride(), q.dtype) != self._strides:
            q, k, v = self._describe(q, k, v)
        given = self._given
        out = torch.empty(q.shape, dtype=q.dtype)
        given.q, given.k, given.v, given.out = q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr()
        given.cache, given.scale = self._caches[layer], self._scales[layer]
        if is_recording():
            given = hold(_Tensors.from_buffer_copy(given))
        call(self._run, self._layout_at, ctypes.addressof(meta.batch), ctypes.addressof(given))
        declare(lambda: bytes_of(q, k, v, out) + meta.attended * self._position_bytes)
        return out

    def _describe(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tell the kernel how the tensors lie; they are read as they are wherever a head's values are neighbours."""
        q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
        assert q.dtype is k.dtype is v.dtype, (q.dtype, k.dtype, v.dtype)
        assert q.dtype in (torch.float32, torch.bfloat16), q.dtype
        given = self._given
        (given.q_token, given.q_head), (given.k_token, given.k_head), (given.v_token, given.v_head) = (
            t.stride()[:2] for t in (q, k, v)
        )
        given.is_bfloat16 = int(q.dtype is torch.bfloat16)
        self._strides = (q.stride(), k.stride(), v.stride(), q.dtype)
        return q, k, v

    def _items(self, batch: Batch, counts: Ints) -> tuple[NDArray[np.void], int, int]:
        """What the kernel's threads take one by one, largest first; rows of several splits, and floats for those."""
        lone = np.flatnonzero(counts == 1)
        splits = -(-batch.contexts[lone] // SPLIT)
        items = np.zeros(int(splits.sum()), _ITEM)
        which = np.repeat(np.arange(len(lone)), splits)
        many = splits > 1
        items["row"], items["count"], items["splits"] = lone[which], 1, splits[which]
        items["token"] = batch.query_starts[lone][which]
        items["split"] = np.where(many[which], np.arange(len(which)) - (splits.cumsum() - splits)[which], -1)
        items["left"] = (many.cumsum() - many)[which]
        floats = np.where(many, splits * self._layout.heads * self._group * (self._layout.dim + 2), 0)
        items["at"] = (floats.cumsum() - floats)[which]
        tiles = [self._tiles(batch, row) for row in np.flatnonzero(counts > 1).tolist()]
        return np.concatenate([*tiles, items]), int(many.sum()), int(floats.sum())

    def _tiles(self, batch: Batch, row: int) -> NDArray[np.void]:
        first, end = int(batch.query_starts[row]), int(batch.query_starts[row + 1])
        step = ROWS // self._group
        tokens = np.arange(first, end, step)[::-1]
        tiles = np.zeros(len(tokens), _ITEM)
        tiles["row"], tiles["token"], tiles["count"] = row, tokens, np.minimum(tokens + step, end) - tokens
        tiles["split"], tiles["splits"] = -1, -(-int(batch.contexts[row]) // SPLIT)
        return tiles


def build(cache: Path | None) -> ctypes.CDLL:
    """The kernel, as calls.library has it."""
    return calls.library(SOURCE, cache)
