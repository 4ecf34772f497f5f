"""Every row of OPS: each version against the reference, over shapes and formats; row-invariant where it says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ridgeline.ops.linear import Upcast
from ridgeline.ops.table import OPS, Op

CASES = [(op, version, shape) for op in OPS for version in op.versions for shape in op.shapes]


def arguments(op: Op, shape: tuple[int, ...], weight_dtype: torch.dtype) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(sum(shape))

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    if op.name == "layer_norm":
        return normal(*shape) * 3 + 1, normal(shape[1]), normal(shape[1]), 1e-5
    if op.name == "linear":
        rows, d_in, d_out = shape
        return normal(rows, d_in), (normal(d_out, d_in) / d_in**0.5).to(weight_dtype), normal(d_out)
    return (normal(*shape) * 3,)


def wide(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.to(torch.float32) if isinstance(value, torch.Tensor) else value for value in given)


@pytest.mark.parametrize(("op", "version", "shape"), CASES, ids=lambda v: getattr(v, "name", str(v)))
def test_a_version_equals_the_reference(op: Op, version: str, shape: tuple[int, ...]) -> None:
    given = arguments(op, shape, torch.bfloat16 if version == "upcast" else torch.float32)
    expected = op.reference(*wide(given))
    found = op.versions[version](*given)
    # One or two rows of 16-bit weights are multiplied in 16 bits, so the result is rounded to 8 bits of mantissa.
    loose = version == "upcast" and shape[0] < 3
    torch.testing.assert_close(found, expected, atol=5e-2 if loose else 1e-4, rtol=2e-2 if loose else 1e-4)
    assert found.is_contiguous()


@pytest.mark.parametrize("op", [op for op in OPS if "torch" in op.row_invariant], ids=lambda op: op.name)
def test_a_row_does_not_depend_on_the_others(op: Op) -> None:
    given = arguments(op, (9, 256), torch.float32)
    whole = op.versions["torch"](*given)
    for row in range(9):
        alone = op.versions["torch"](given[0][row : row + 1], *given[1:])
        assert torch.equal(alone[0], whole[row])


@pytest.mark.parametrize("tile_bytes", [4 * 64 * 7, 4 * 64 * 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_upcast_in_tiles_of_any_size(tile_bytes: int, dtype: torch.dtype) -> None:
    x, weight = torch.randn(5, 64), torch.randn(101, 64).to(dtype)
    torch.testing.assert_close(Upcast(tile_bytes)(x, weight), x @ weight.to(torch.float32).t())


def test_names_are_unique() -> None:
    assert len({op.name for op in OPS}) == len(OPS)
