"""Plain torch over the kernel's cells, until the kernel is there: the same cache, and all else but for rounding."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from ridgeline.attention import native
from ridgeline.attention.native import Native
from ridgeline.attention.native_soon import Soon
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.device import jit
from ridgeline.device.cpu import CpuDevice
from ridgeline.device.jit import CPP, CannotBuild, Compiler
from tests.attention.test_native import Rows, spec_of

CPU = CpuDevice(torch.float32)


@pytest.fixture
def compiler() -> Compiler:
    try:
        return Compiler.find(language=CPP)
    except CannotBuild as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block_size", [16, 5])
def test_the_kernel_takes_over_a_cache_that_plain_torch_wrote(
    tmp_path: Path, compiler: Compiler, dtype: torch.dtype, block_size: int
) -> None:
    """Some steps before, some after; the kernel alone says what is right."""
    building = jit.begin(jit.source_of(native.SOURCE), tmp_path, compiler)
    assert building is not None
    soon, spec, rows = Soon(building), spec_of(), Rows(block_size)
    soon.store(spec, rows.num_blocks, block_size, dtype, CPU)
    alone = Native(native.build(None))
    alone.store(spec, rows.num_blocks, block_size, dtype, CPU)
    steps = [{0: 40, 1: 1}, {0: 1, 1: 1}, {0: 1, 1: 70, 2: 3}, {0: 1, 1: 1, 2: 1}]
    for turn, counts in enumerate(steps):
        if turn == 2:
            building.wait(120)
            soon.between()
        batch = rows.batch(counts)
        tokens = batch.tokens.shape[0]
        q, k, v = (
            torch.from_numpy(rows.rng.standard_normal((tokens, spec.heads, spec.head_dim)).astype(np.float32))
            for _ in range(3)
        )
        plan = soon.plan(batch)
        assert isinstance(plan, native.NativeMeta) == (turn >= 2)
        found, expected = soon(0, q, k, v, plan), alone(0, q, k, v, alone.plan(batch))
        torch.testing.assert_close(found, expected, atol=2e-2 if dtype is torch.bfloat16 else 1e-5, rtol=1e-2)
    assert not soon.idle()


def test_an_idle_engine_waits_for_the_kernel_a_little_at_a_time(tmp_path: Path, compiler: Compiler) -> None:
    source = 'extern "C" {\nint ridgeline_attention() { return 0; }\nint ridgeline_attention_rows() { return 0; }\n}\n'
    building = jit.begin(source, tmp_path, compiler)
    assert building is not None
    soon = Soon(building)
    while soon.idle():
        soon.between()
    assert jit.begin(source, tmp_path, compiler) is None


def test_a_kernel_that_cannot_be_compiled_leaves_plain_torch_and_says_so(
    tmp_path: Path, compiler: Compiler, caplog: pytest.LogCaptureFixture
) -> None:
    building = jit.begin("this is no C++\n", tmp_path, compiler)
    assert building is not None
    soon = Soon(building)
    building.wait(120)
    with caplog.at_level(logging.WARNING, logger="ridgeline"):
        soon.between()
    assert "stays plain torch" in caplog.text
    assert not soon.idle()


def test_only_who_need_not_wait_begins_without_it(tmp_path: Path, compiler: Compiler) -> None:
    spec = GPT2_SHAPES["gpt2"]
    scaled = Native.open_soon(spec, torch.int8, CPU, tmp_path)
    assert not isinstance(scaled, Soon), "the rounding to 8 bits is the kernel's"
    assert compiler.path
    kept = Native.open_soon(spec, torch.float32, CPU, tmp_path)
    assert not isinstance(kept, Soon), "it has just been compiled for the other"
    assert isinstance(Native.open_soon(spec, torch.float32, CPU, tmp_path / "another"), Soon)
    assert not isinstance(Native.open_soon(spec, torch.float32, CPU, None), Soon)
