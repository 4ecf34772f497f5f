"""Reference attention against a loop over tokens that anybody can check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ridgeline.attention.base import AnyAttention
from ridgeline.attention.batch import Batch
from ridgeline.attention.reference import Reference, without_cudnn
from ridgeline.core.spec import ModelSpec
from ridgeline.device.cpu import CpuDevice

SPEC = ModelSpec(layers=2, d_model=24, heads=3, d_inner=8, vocab=5, max_positions=64)
BLOCK, NUM_BLOCKS = 4, 60
CPU = CpuDevice(torch.float32)


class Rows:
    """Sequences and their blocks, grown step by step; keeps every key and value for the naive answer."""

    def __init__(self, attention: AnyAttention, dtype: torch.dtype, spec: ModelSpec = SPEC) -> None:
        self.attention, self.spec, self.dtype = attention, spec, dtype
        self.store = attention.store(spec, NUM_BLOCKS, BLOCK, dtype, CPU)
        self.rng = np.random.default_rng(11)
        self.free = self.rng.permutation(NUM_BLOCKS).tolist()
        self.blocks: dict[int, list[int]] = {}
        self.kept: dict[int, list[list[tuple[Tensor, Tensor]]]] = {}  # row, layer, position

    def step(self, counts: dict[int, int]) -> None:
        """Give each row so many more tokens, and check every output of every layer."""
        batch = self._batch(counts)
        meta = self.attention.plan(batch)
        shape = (self.spec.layers, 3, int(batch.query_starts[-1]), self.spec.heads, self.spec.head_dim)
        given = torch.from_numpy(self.rng.normal(size=shape)).to(torch.float32)
        for layer in range(self.spec.layers):
            q, k, v = given[layer].unbind(0)
            out = self.attention(layer, q, k, v, meta)
            torch.testing.assert_close(out, self._naive(layer, counts, q, k, v), atol=1e-4, rtol=1e-4)

    def _batch(self, counts: dict[int, int]) -> Batch:
        positions: list[int] = []
        writes: list[int] = []
        starts: list[int] = []
        for row, count in counts.items():
            held = self.blocks.setdefault(row, [])
            known = len(self.kept.setdefault(row, [[] for _ in range(self.spec.layers)])[0])
            while len(held) * BLOCK < known + count:
                held.append(self.free.pop())
            at = range(known, known + count)
            positions += at
            writes += [held[p // BLOCK] * BLOCK + p % BLOCK for p in at]
            starts.append(known)
        contexts = np.array(starts) + list(counts.values())
        width = -(-int(contexts.max()) // BLOCK)
        tables = [(self.blocks[row] + [NUM_BLOCKS] * width)[:width] for row in counts]
        return Batch(
            tokens=torch.zeros(len(positions), dtype=torch.int32), positions=torch.tensor(positions),
            writes=torch.tensor(writes), block_tables=torch.tensor(tables, dtype=torch.int32),
            wanted=torch.zeros(0, dtype=torch.int64), query_starts=np.cumsum([0, *counts.values()]),
            starts=np.array(starts), contexts=contexts,
            max_query=max(counts.values()), max_context=int(contexts.max()), padding=0,
        )  # fmt: skip

    def _naive(self, layer: int, counts: dict[int, int], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = self.spec.head_dim**-0.5 if self.spec.scale_attention else 1.0
        scale /= layer + 1 if self.spec.scale_by_layer else 1
        out, at = torch.empty_like(q), 0
        for row, count in counts.items():
            mine = self.kept[row][layer]
            for _ in range(count):
                mine.append((k[at].to(self.dtype).float(), v[at].to(self.dtype).float()))
                keys, values = (torch.stack(part) for part in zip(*mine, strict=True))
                scores = torch.softmax(torch.einsum("hd,nhd->hn", q[at], keys) * scale, -1)
                out[at] = torch.einsum("hn,nhd->hd", scores, values)
                at += 1
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("group_tokens", [4, 40, 1000])
def test_prompts_chunks_and_single_tokens_in_any_mix(dtype: torch.dtype, group_tokens: int) -> None:
    rows = Rows(Reference(group_tokens), dtype)
    rows.step({0: 5, 1: 1, 2: 17})  # whole prompts, one of a single token
    rows.step({3: 9, 0: 1, 2: 1, 1: 1})  # a prompt between single tokens of different contexts
    rows.step({2: 6, 3: 1, 0: 1, 4: 4})  # a later chunk, over cached positions
    rows.step({0: 1, 1: 1, 2: 1, 3: 1, 4: 1})
    rows.step({4: 2, 0: 1})
    for row, held in rows.blocks.items():
        for layer in range(SPEC.layers):
            keys, values = rows.store.read(layer, held)
            kept = rows.kept[row][layer]
            assert torch.equal(keys[: len(kept)].float(), torch.stack([k for k, _ in kept]))
            assert torch.equal(values[: len(kept)].float(), torch.stack([v for _, v in kept]))


@pytest.mark.parametrize(("scaled", "by_layer"), [(True, True), (False, False), (False, True)])
def test_scales(scaled: bool, by_layer: bool) -> None:
    spec = ModelSpec(3, 24, 3, 8, 5, 64, scale_attention=scaled, scale_by_layer=by_layer)
    rows = Rows(Reference(), torch.float32, spec)
    rows.step({0: 6})
    rows.step({0: 1, 1: 3})
    rows.step({0: 2, 1: 1})


def test_what_float16_cannot_hold_does_not_reach_the_next_owner_of_a_block() -> None:
    """A masked infinity would: it is multiplied by 0."""
    attention = Reference()
    rows = Rows(attention, torch.float16)
    huge = torch.full((1, SPEC.heads, SPEC.head_dim), 1e9)
    meta = attention.plan(rows._batch({0: 1}))
    attention(0, huge, huge, -huge, meta)
    keys, values = rows.store.read(0, range(NUM_BLOCKS))
    assert torch.isfinite(keys).all()
    assert torch.isfinite(values).all()
    assert keys.max() == 65504


def test_a_launch_uploads_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever groups its rows fall into: each upload costs a GPU's host as much as several operations."""
    rows, uploads = Rows(Reference(8), torch.float32), 0
    rows.step({0: 9, 1: 3, 2: 1})

    def upload(arrays: Sequence[np.ndarray]) -> list[Tensor]:
        nonlocal uploads
        uploads += 1
        return CPU.upload(arrays)

    monkeypatch.setattr(rows.attention, "_upload", upload)
    rows.step({0: 1, 1: 1, 2: 1, 3: 5})
    assert uploads == 1
    rows.step({3: 4})
    assert uploads == 1


def test_cudnn_is_set_aside_for_the_call_and_for_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def attend(*_: Any, **__: Any) -> torch.Tensor:
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())  # type: ignore[no-untyped-call]
        raise LookupError

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    for before in (True, False):
        torch.backends.cuda.enable_cudnn_sdp(before)
        with pytest.raises(LookupError):
            without_cudnn(torch.zeros(1))
        assert torch.backends.cuda.cudnn_sdp_enabled() is before  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(True)
    assert seen == [False, False]
