"""Every row of OPS: each version against the reference, over shapes and formats; row-invariant where it says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ridgeline.device.cpu import CpuDevice
from ridgeline.lab.rig import formats_of
from ridgeline.ops.cases import wide
from ridgeline.ops.linear import Upcast, linear, linear_kernel
from ridgeline.ops.table import OPS, Op
from ridgeline.ops.tiles import InTiles

DEVICES = {
    "float32": CpuDevice(torch.float32, threads=1),
    "bfloat16": CpuDevice(torch.bfloat16, threads=1, native_bfloat16=True),
    "bfloat16, widened": CpuDevice(torch.bfloat16, threads=1, native_bfloat16=False),
}
CASES = [
    (op, version, formats, shape)
    for op in OPS
    for formats, device in DEVICES.items()
    for version in op.versions_for(device)
    for shape in op.shapes
]


def arguments(op: Op, shape: tuple[int, ...], device: CpuDevice) -> tuple[Any, ...]:
    return op.inputs(shape, device, torch.Generator().manual_seed(sum(shape)))


def results(found: Any) -> tuple[torch.Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize(("op", "version", "formats", "shape"), CASES, ids=lambda v: getattr(v, "name", str(v)))
def test_a_version_equals_the_reference(op: Op, version: str, formats: str, shape: tuple[int, ...]) -> None:
    device = DEVICES[formats]
    given = arguments(op, shape, device)
    expected = results(op.reference(*wide(given)))
    found = results(op.versions[version](*given))
    # One or two rows of 16-bit weights are multiplied in 16 bits, so the result is rounded to 8 bits of mantissa.
    loose = device.compute is torch.bfloat16 or (version == "upcast" and shape[0] < 3)
    atol, rtol = (5e-2, 2e-2) if loose else (1e-4, 1e-4)
    torch.testing.assert_close(found, expected, check_dtype=False, atol=atol + op.slack, rtol=rtol)
    assert all(part.is_contiguous() for part in found)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_row_can_be_timed(op: Op) -> None:
    """It has arguments for every shape, and a cost that covers at least the tensors that go in and come out."""
    device = DEVICES["bfloat16"]
    assert op.sizes
    for shape in op.shapes:
        given = arguments(op, shape, device)
        tensors = [value for value in given if isinstance(value, torch.Tensor)]
        made = results(op.reference(*given))
        moved = sum(value.numel() * value.element_size() for value in (*tensors, *made))
        counted, flops = op.cost(shape, formats_of(device))
        assert 0.9 * moved <= counted <= 1.1 * moved
        assert flops >= 0
    for size in op.sizes:
        assert op.cost(size, formats_of(device))[0] > 0


INVARIANT = [
    (op, version, formats)
    for op in OPS
    for formats, device in DEVICES.items()
    for version in ("reference", *op.versions_for(device))
    if version in op.row_invariant and len(op.shapes[0]) > 1
]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("op", "version", "formats"), INVARIANT, ids=lambda v: getattr(v, "name", str(v)))
def test_a_row_does_not_depend_on_the_others(op: Op, version: str, formats: str, threads: int) -> None:
    """Nor on its place among them, in widths that fill no vector, and enough of them for every thread to get a part."""
    run = op.reference if version == "reference" else op.versions[version]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for rest in ((256, 97)[: len(op.shapes[0]) - 1], (3001, 37)[: len(op.shapes[0]) - 1]):
            given = arguments(op, (33, *rest), DEVICES[formats])
            by_row = [isinstance(value, torch.Tensor) and value.shape[0] == 33 for value in given]
            whole = results(run(*given))
            for first, end in ((0, 1), (1, 2), (5, 8), (7, 23), (16, 33), (32, 33)):
                part = run(*(v[first:end] if mine else v for v, mine in zip(given, by_row, strict=True)))
                for some, all_ in zip(results(part), whole, strict=True):
                    assert torch.equal(some, all_[first:end]), (rest, first, end)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("formats", DEVICES)
def test_what_a_model_runs_is_a_version_for_its_device(formats: str) -> None:
    linear = next(op for op in OPS if op.name == "linear")
    chosen = linear_kernel(DEVICES[formats])
    assert type(chosen) in {type(run) for run in linear.versions_for(DEVICES[formats]).values()}


@pytest.mark.parametrize("tile_bytes", [4 * 64 * 7, 4 * 64 * 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_upcast_in_tiles_of_any_size(tile_bytes: int, dtype: torch.dtype) -> None:
    x, weight = torch.randn(5, 64), torch.randn(101, 64).to(dtype)
    torch.testing.assert_close(Upcast(tile_bytes)(x, weight), x @ weight.to(torch.float32).t())


def test_names_are_unique() -> None:
    assert len({op.name for op in OPS}) == len(OPS)


def test_a_product_in_tiles_may_begin_in_inference_mode_and_go_on_without_it() -> None:
    tiled, x, weight = InTiles(linear, 4), torch.ones(3, 8), torch.ones(2, 8)
    with torch.inference_mode():
        first = tiled(x, weight)
    assert tiled(2 * x, weight).tolist() == (2 * first).tolist() == [[16.0, 16.0]] * 3
