"""PyTorch's attention over head-major pages, until the kernels are taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ridgeline.attention import paged
from ridgeline.attention.paged import Paged, PagedMeta
from ridgeline.attention.paged_soon import PagedSoon
from ridgeline.attention.reference import ReferenceMeta
from ridgeline.device.cpu import CpuDevice
from tests.attention.test_paged import is_held
from tests.attention.test_reference import SPEC, Rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("taken_after", [0, 2, 4])
def test_a_cache_goes_on_whoever_attends(dtype: torch.dtype, taken_after: int) -> None:
    attention = PagedSoon()
    rows = Rows(attention, dtype)
    steps = [{0: 5, 1: 1, 2: 17}, {3: 9, 0: 1, 2: 1, 1: 1}, {2: 6, 3: 1, 0: 1, 4: 4}, {0: 1, 1: 1, 2: 1, 3: 1, 4: 1}]
    for turn, step in enumerate(steps):
        if turn == taken_after:
            attention.take()
        rows.step(step)
    is_held(rows)


def test_who_plans_says_who_attends() -> None:
    attention = PagedSoon()
    rows = Rows(attention, torch.float32)
    assert isinstance(attention.plan(rows._batch({0: 3})), ReferenceMeta)
    attention.take()
    assert isinstance(attention.plan(rows._batch({1: 3})), PagedMeta)


def test_only_where_something_is_compiled_and_the_cache_has_no_scales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = CpuDevice(torch.float32)
    assert not isinstance(Paged.open_soon(SPEC, torch.float32, device, tmp_path), PagedSoon)
    monkeypatch.setattr(paged, "is_triton", lambda _device: True)
    assert isinstance(Paged.open_soon(SPEC, torch.float32, device, tmp_path), PagedSoon)
    assert not isinstance(Paged.open_soon(SPEC, torch.int8, device, tmp_path), PagedSoon)
