"""The native backend against the reference, over everything that a batch and a cache may be."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ridgeline.attention import native
from ridgeline.attention.batch import Batch
from ridgeline.attention.native import Native
from ridgeline.attention.reference import Reference
from ridgeline.core.spec import ModelSpec
from ridgeline.device.cpu import CpuDevice
from ridgeline.device.jit import CannotBuild
from ridgeline.device.recording import recording
from ridgeline.ops.declared import bytes_of, listening

NUM_TOKENS = 2600  # of the cache
CPU = CpuDevice(torch.float32)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> object:
    try:
        return native.build(tmp_path_factory.mktemp("kernels"))
    except CannotBuild as error:
        pytest.skip(str(error))


@pytest.fixture
def made(library: object) -> Make:
    return Make(library)


@dataclasses.dataclass(frozen=True)
class Make:
    library: object

    def __call__(self, group: int = 1) -> Native:
        return Native(self.library, group)  # type: ignore[arg-type]


def spec_of(heads: int = 2, head_dim: int = 64, layers: int = 1) -> ModelSpec:
    return ModelSpec(layers, heads * head_dim, heads, 8, 5, 1024)


class Rows:
    """Sequences in a cache, grown step by step by one backend or several alike."""

    def __init__(self, block_size: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.size, self.num_blocks = block_size, -(-NUM_TOKENS // block_size)
        self.free = self.rng.permutation(self.num_blocks).tolist()
        self.blocks: dict[int, list[int]] = {}
        self.known: dict[int, int] = {}

    def batch(self, counts: dict[int, int], longest: int = 0) -> Batch:
        """longest: pad every row to so many queries, and add a row that belongs to nobody."""
        positions: list[int] = []
        writes: list[int] = []
        starts: list[int] = []
        widths: list[int] = []
        for row, count in counts.items():
            held, known = self.blocks.setdefault(row, []), self.known.get(row, 0)
            while len(held) * self.size < known + count:
                held.append(self.free.pop())
            at = list(range(known, known + count))
            padding = max(0, longest - count)
            positions += at + [at[-1]] * padding
            writes += [held[p // self.size] * self.size + p % self.size for p in at] + [self.scratch] * padding
            starts.append(known)
            widths.append(count + padding)
            self.known[row] = known + count
        contexts = [start + count for start, count in zip(starts, counts.values(), strict=True)]
        tables = [self.blocks[row] for row in counts]
        if longest:
            positions += [0] * longest
            writes += [self.scratch] * longest
            starts, contexts, widths, tables = [*starts, 0], [*contexts, 1], [*widths, longest], [*tables, []]
        width = -(-max(contexts) // self.size)
        return Batch(
            tokens=torch.zeros(len(positions), dtype=torch.int32), positions=torch.tensor(positions),
            writes=torch.tensor(writes),
            block_tables=torch.tensor([(t + [self.num_blocks] * width)[:width] for t in tables], dtype=torch.int32),
            wanted=torch.zeros(0, dtype=torch.int64), query_starts=np.cumsum([0, *widths]),
            starts=np.array(starts), contexts=np.array(contexts),
            max_query=max(widths), max_context=max(contexts), padding=len(positions) - sum(counts.values()),
        )  # fmt: skip

    @property
    def scratch(self) -> int:
        return self.num_blocks * self.size

    def draw(self, tokens: int, heads: int, group: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Views of one tensor, as a model gives them."""
        given = torch.from_numpy(self.rng.normal(size=(tokens, heads * (group + 2), dim))).to(dtype)
        q, k, v = torch.split(given, [heads * group, heads, heads], 1)
        return q, k, v


def quantized(x: Tensor) -> Tensor:
    """x: [tokens, heads, head_dim]. What int8 with a scale for every token and head makes of it."""
    scale = x.float().abs().amax(-1, keepdim=True) / 127
    return torch.round(x.float() / scale).clamp(-127, 127) * scale


MIX: tuple[dict[int, int], ...] = (
    {0: 5, 1: 1, 2: 300},  # whole prompts, one of a single token
    {3: 9, 0: 1, 2: 1, 1: 1},  # a prompt between single tokens of different contexts
    {2: 260, 3: 1, 0: 1, 4: 40},  # a later chunk, over cached positions and a split's end
    {0: 1, 1: 1, 2: 1, 3: 1, 4: 1},
    {4: 2, 0: 1},
)


def agree(
    made: Make, mix: Sequence[dict[int, int]] = MIX, *, dtype: torch.dtype = torch.float32, block_size: int = 16,
    heads: int = 2, group: int = 1, dim: int = 64, given: torch.dtype = torch.float32, longest: int = 0,
) -> None:  # fmt: skip
    rows, ours, theirs = Rows(block_size), made(group), Reference()
    spec = spec_of(heads * group, dim)
    exact = torch.float32 if dtype is torch.int8 else dtype
    mine = ours.store(spec, rows.num_blocks, block_size, dtype, CPU)
    reference = theirs.store(spec, rows.num_blocks, block_size, exact, CPU)
    for counts in mix:
        batch = rows.batch(counts, longest and max(longest, *counts.values()))
        q, k, v = rows.draw(batch.positions.shape[0], heads, group, dim, given)
        out = ours(0, q, k, v, ours.plan(batch))
        if dtype is torch.int8:
            k, v = quantized(k), quantized(v)
        k, v = (t.to(q.dtype).repeat_interleave(group, 1) if dtype is not torch.int8 else t.repeat_interleave(group, 1)
                for t in (k, v))  # fmt: skip
        expected = theirs(0, q, k, v, theirs.plan(batch))
        last = int(batch.query_starts[len(counts)])
        close = 0.02 if given is torch.bfloat16 else 2e-5
        assert torch.isfinite(out).all()
        torch.testing.assert_close(out[:last], expected[:last], atol=close, rtol=close)
    for held in rows.blocks.values():
        for got, wanted in zip(mine.read(0, held), reference.read(0, held), strict=True):
            assert got.shape == (wanted.shape[0], heads, dim)
            torch.testing.assert_close(got.float(), wanted[:, ::group].float(), atol=1e-6, rtol=1e-6)


DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8)
PAIRS = [(dtype, given) for dtype in DTYPES for given in (torch.float32, torch.bfloat16)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [16, 32, 48, 64, 80, 96, 128, 160, 256])
def test_head_sizes(made: Make, dtype: torch.dtype, dim: int) -> None:
    agree(made, dtype=dtype, dim=dim)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 8, 15, 17, 24, 31, 32, 48, 64])
def test_block_sizes(made: Make, dtype: torch.dtype, block_size: int) -> None:
    agree(made, dtype=dtype, block_size=block_size, dim=32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [2, 3, 8, 32])
def test_heads_that_share_keys(made: Make, dtype: torch.dtype, group: int) -> None:
    agree(made, dtype=dtype, group=group, dim=32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_contexts_that_end_anywhere_in_a_block_and_a_split(made: Make, dtype: torch.dtype) -> None:
    growing = [{row: 240 + row for row in range(8)}, *[dict.fromkeys(range(8), 1)] * 18]
    agree(made, growing, dtype=dtype, dim=32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_padded_rows(made: Make, dtype: torch.dtype) -> None:
    agree(made, dtype=dtype, dim=32, longest=1)
    agree(made, [{0: 5, 1: 1}, {0: 1, 1: 1}, {0: 1, 1: 3}], dtype=dtype, dim=32, longest=4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [32, 64, 80, 128])
def test_bfloat16_activations(made: Make, dtype: torch.dtype, dim: int) -> None:
    agree(made, dtype=dtype, dim=dim, given=torch.bfloat16)
    agree(made, dtype=dtype, dim=dim, given=torch.bfloat16, block_size=32, group=3)


@pytest.mark.parametrize(("dtype", "given"), PAIRS)
def test_what_nobody_wrote_does_not_leak(made: Make, dtype: torch.dtype, given: torch.dtype) -> None:
    """Blocks may hold anything of their last owner behind a row's end, and what is no number even times 0 is none."""
    for block_size in (16, 3):
        rows, ours = Rows(block_size), made()
        store = ours.store(spec_of(), rows.num_blocks, block_size, dtype, CPU)
        for layer in store.layers:
            layer.fill_(0xFF)  # a NaN in every floating format
        for counts in ({0: 5, 1: 1, 2: 300}, {0: 1, 1: 1, 2: 1}, {0: 20, 1: 1}):
            batch = rows.batch(counts)
            out = ours(0, *rows.draw(batch.positions.shape[0], 2, 1, 64, given), ours.plan(batch))
            assert torch.isfinite(out).all()


def test_what_float16_cannot_hold(made: Make) -> None:
    rows, ours = Rows(16), made()
    store = ours.store(spec_of(), rows.num_blocks, 16, torch.float16, CPU)
    batch = rows.batch({0: 4})
    values = [65504.0, -65520.0, 1e9, -torch.inf, torch.nan, 6e-8, 2.98e-8, 1e-7, 6.1e-5, 0.1, 65500.0, -1 / 3, 2049.0]
    k = torch.tensor(values * 16)[: 2 * 64].reshape(1, 2, 64).repeat(4, 1, 1)
    ours(0, torch.zeros(4, 2, 64), k, -k, ours.plan(batch))
    keys, others = store.read(0, rows.blocks[0])
    assert torch.equal(keys[:4], torch.nan_to_num(k.half(), 0.0, 65504.0, -65504.0))
    assert torch.equal(others[:4], torch.nan_to_num(-k.half(), 0.0, 65504.0, -65504.0))


def test_int8_is_off_by_half_a_step_at_most(made: Make) -> None:
    rows, ours = Rows(16), made()
    store = ours.store(spec_of(), rows.num_blocks, 16, torch.int8, CPU)
    batch = rows.batch({0: 70})
    q, k, v = rows.draw(70, 2, 1, 64, torch.float32)
    k[3], v[3], k[4] = 0.0, 1e-35, k[4] * 1e6
    ours(0, q, k, v, ours.plan(batch))
    for got, wanted in zip(store.read(0, rows.blocks[0]), (k, v), strict=True):
        step = wanted.abs().amax(-1, keepdim=True) / 127
        assert ((got[:70] - wanted).abs() <= step * 0.5001 + 1e-34).all()


@pytest.mark.parametrize(("dtype", "given"), PAIRS)
@pytest.mark.parametrize(("dim", "group", "size"), [(64, 1, 1.0), (80, 1, 1.0), (32, 4, 1.0), (96, 1, 1e-37)])
def test_a_row_is_bitwise_the_same_in_every_batch_and_at_every_chunking(
    made: Make, dtype: torch.dtype, given: torch.dtype, dim: int, group: int, size: float
) -> None:
    """Also where products are smaller than any normal float, which a matrix unit takes as 0."""
    tokens = 560
    rng = np.random.default_rng(5)
    print("seed 5")
    whole = torch.from_numpy(size * rng.normal(size=(tokens, 2 * (group + 2), dim))).to(given)

    def outputs(cuts: Sequence[int], company: Sequence[dict[int, int]], block_size: int) -> Tensor:
        """Row 0 in pieces, each between other rows."""
        rows, ours = Rows(block_size), made(group)
        ours.store(spec_of(2 * group, dim), rows.num_blocks, block_size, dtype, CPU)
        parts: list[Tensor] = []
        at = 0
        for turn, count in enumerate(cuts):
            others = list(company[turn].items()) if turn < len(company) else []
            counts = dict([*others[:1], (0, count), *others[1:]])
            batch = rows.batch(counts)
            own = int(batch.query_starts[list(counts).index(0)])
            qkv = torch.cat(rows.draw(batch.positions.shape[0], 2, group, dim, given), 1)
            qkv[own : own + count] = whole[at : at + count]
            q, k, v = torch.split(qkv, [2 * group, 2, 2], 1)
            out = ours(0, q, k, v, ours.plan(batch))
            parts.append(out[own : own + count])
            at += count
        return torch.cat(parts)

    alone = outputs([tokens], [], 16)
    assert torch.equal(outputs([1, 31, 2, 255, 1, 1, 200, *[1] * 69], [], 16), alone)
    company = [{1: 7, 2: 1}, {2: 1, 3: 40}, {1: 1, 2: 1, 3: 1}] * 30
    assert torch.equal(outputs([300, *[1] * 40, 220], company, 16), alone)
    assert torch.equal(outputs([500, *[1] * 60], company, 24), alone)


def test_many_layers_and_threads_take_turns(made: Make) -> None:
    """Rows of several splits are merged by whoever comes last, and the counters begin anew for every layer."""
    rows, ours = Rows(16), made()
    ours.store(spec_of(layers=3), rows.num_blocks, 16, torch.bfloat16, CPU)
    outs: list[list[Tensor]] = []
    for counts in ({0: 700, 1: 600, 2: 3}, *[{0: 1, 1: 1, 2: 1}] * 3):
        batch = rows.batch(counts)
        q, k, v = rows.draw(batch.positions.shape[0], 2, 1, 64, torch.float32)
        meta = ours.plan(batch)
        outs.append([ours(layer, q, k, v, meta) for layer in range(3)])
    for first, *others in outs:
        assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("block_size", [16, 5])
def test_rows_that_native_code_lays_out_are_those_of_a_batch(made: Make, block_size: int) -> None:
    """Which row of the tables is whose, and where it is, is read when the calls are made again."""
    rows, spec = Rows(block_size), spec_of(layers=2)
    ours, other = made(), made()
    for attention in (ours, other):
        attention.store(spec, rows.num_blocks, block_size, torch.bfloat16, CPU)
    batch = rows.batch({0: 700, 1: 30, 2: 255})
    q, k, v = rows.draw(batch.positions.shape[0], 2, 1, 64, torch.float32)
    for attention in (ours, other):
        for layer in range(2):
            attention(layer, q, k, v, attention.plan(batch))
    tables = torch.full((8, 200), rows.num_blocks, dtype=torch.int32)  # of more rows and blocks than a step has
    which, positions = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    writes = torch.full((3,), rows.scratch)
    q, k, v = rows.draw(3, 2, 1, 64, torch.float32)
    with recording() as kept:
        meta = ours.plan_rows(which, positions, writes, tables, 960)
        outs = [ours(layer, q, k, v, meta) for layer in range(2)]
    assert not kept.strangers
    for order in ([5, 0, 3], [1, 2, 7]):
        batch = rows.batch({0: 1, 1: 1, 2: 1})
        which[:], positions[:], writes[:] = torch.tensor(order), batch.positions, batch.writes
        for row, own in zip(order, batch.block_tables, strict=True):
            tables[row, : len(own)] = own
        for made_call in kept.calls:
            ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int64] * 6)(made_call.function)(*made_call.given)
        for layer, out in enumerate(outs):
            assert torch.equal(out, other(layer, q, k, v, other.plan(batch))), (order, layer)


def test_the_kernel_says_what_it_was_given(made: Make) -> None:
    rows, ours, told = Rows(16), made(), list[int]()
    ours.store(spec_of(), rows.num_blocks, 16, torch.bfloat16, CPU)
    batch = rows.batch({0: 5, 1: 1})
    q, k, v = rows.draw(6, 2, 1, 64, torch.float32)
    meta = ours.plan(batch)
    with listening(told.append):
        out = ours(0, q, k, v, meta)
    assert told == [bytes_of(q, k, v, out) + 6 * 2 * 2 * 64 * 2]  # positions, heads, keys and values, bfloat16


def test_the_kernel_is_kept(library: object, tmp_path: Path) -> None:
    native.build(tmp_path)
    (made,) = (tmp_path / "kernels").glob("*.so")
    before = made.stat().st_mtime_ns
    native.build(tmp_path)
    assert made.stat().st_mtime_ns == before
