"""Every row of OPS: each version against the reference, over shapes and formats; row-invariant where it says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ridgeline.ops.linear import Upcast
from ridgeline.ops.table import OPS, Op

_FLOATS = {"layer_norm", "gelu_new", "gelu", "linear"}  # their references are given float32 whatever the version is
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
    if op.name in ("penalize", "add_bias", "score"):
        return (normal(*shape) * 3, *_beside_logits(op.name, shape[0], shape[1], generator))
    return (normal(*shape) * 3,)


def _beside_logits(name: str, rows: int, vocab: int, generator: torch.Generator) -> tuple[Any, ...]:
    def whole(high: int, *size: int) -> torch.Tensor:
        return torch.randint(0, high, size, generator=generator)

    if name == "score":
        return whole(vocab, rows), 20
    if name == "add_bias":
        ids = torch.stack([torch.randperm(vocab, generator=generator)[:40] for _ in range(rows)])
        return ids, torch.where(whole(2, rows, 40) > 0, torch.rand(rows, 40, generator=generator) * 200 - 100, 0.0)
    odds = torch.rand(3, rows, generator=generator, dtype=torch.float64) * 2
    lengths = whole(30, rows) + 1
    prompts = (lengths * torch.rand(rows, generator=generator)).long()
    # Few tokens, so that some come often; what lies from `lengths` on is of a request that left.
    return whole(min(vocab, 50), rows, 32).to(torch.int32), lengths, prompts, odds[0] + 0.1, odds[1], odds[2] - 1


def results(found: Any) -> tuple[torch.Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def wide(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.to(torch.float32) if isinstance(value, torch.Tensor) else value for value in given)


@pytest.mark.parametrize(("op", "version", "shape"), CASES, ids=lambda v: getattr(v, "name", str(v)))
def test_a_version_equals_the_reference(op: Op, version: str, shape: tuple[int, ...]) -> None:
    given = arguments(op, shape, torch.bfloat16 if version == "upcast" else torch.float32)
    expected = results(op.reference(*(wide(given) if op.name in _FLOATS else given)))
    found = results(op.versions[version](*given))
    # One or two rows of 16-bit weights are multiplied in 16 bits, so the result is rounded to 8 bits of mantissa.
    loose = version == "upcast" and shape[0] < 3
    torch.testing.assert_close(found, expected, atol=5e-2 if loose else 1e-4, rtol=2e-2 if loose else 1e-4)
    assert all(part.is_contiguous() for part in found)


@pytest.mark.parametrize("op", [op for op in OPS if "torch" in op.row_invariant], ids=lambda op: op.name)
def test_a_row_does_not_depend_on_the_others(op: Op) -> None:
    given = arguments(op, (9, 256), torch.float32)
    by_row = [isinstance(value, torch.Tensor) and value.shape[0] == 9 for value in given]
    whole = results(op.versions["torch"](*given))
    for row in range(9):
        alone = op.versions["torch"](*(v[row : row + 1] if mine else v for v, mine in zip(given, by_row, strict=True)))
        for one, many in zip(results(alone), whole, strict=True):
            assert torch.equal(one[0], many[row])


@pytest.mark.parametrize("tile_bytes", [4 * 64 * 7, 4 * 64 * 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_upcast_in_tiles_of_any_size(tile_bytes: int, dtype: torch.dtype) -> None:
    x, weight = torch.randn(5, 64), torch.randn(101, 64).to(dtype)
    torch.testing.assert_close(Upcast(tile_bytes)(x, weight), x @ weight.to(torch.float32).t())


def test_names_are_unique() -> None:
    assert len({op.name for op in OPS}) == len(OPS)
