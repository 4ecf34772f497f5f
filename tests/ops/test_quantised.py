"""Layers of integers: packed bytes stand for the weights, native code equals the definition at odd sizes, and a row's
result is bitwise the same at every number of rows."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ridgeline.device.jit import CPP, CannotBuild, Compiler
from ridgeline.ops.declared import bytes_of, listening
from ridgeline.ops.gemv import LayerNorm
from ridgeline.ops.packed import BITS, Packed
from ridgeline.ops.quantised import ByteRows, Layer, Native, gathered, normed_linear, quantised_linear

SHAPES = [(64, 16), (1, 1), (7, 5), (33, 17), (65, 50), (127, 33), (768, 80), (100, 301), (3072, 20)]
ROWS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 70, 128, 385, 401)
Parts = tuple[Packed, Tensor, Tensor, Tensor]


@pytest.fixture(scope="module", params=[1, 3])
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Native:
    """With one thread, and with more than some matrices have strips for."""
    try:
        Compiler.find(language=CPP)
    except CannotBuild as error:
        pytest.skip(str(error))
    return Native(tmp_path_factory.getbasetemp(), request.param)


def drawn(bits: int, d_in: int, d_out: int, dtype: torch.dtype) -> Parts:
    """Weight, bias, activations with a few that stand out as GPT-2 has them, residual."""
    generator = torch.Generator().manual_seed(d_in * 1000 + d_out)
    draw: Callable[..., Tensor] = lambda *size: torch.randn(size, generator=generator)  # noqa: E731
    x = draw(max(ROWS), d_in) + 0.5
    x[:, :: max(2, d_in // 3)] *= 20
    return Packed.of(draw(d_out, d_in) / d_in**0.5, bits), draw(d_out), x.to(dtype), draw(len(x), d_out).to(dtype)


@pytest.mark.parametrize(("bits", "most"), [(8, 0.01), (4, 0.1)])
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_packed_weights_stand_for_the_weights(bits: int, most: float, d_in: int, d_out: int) -> None:
    weight = torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(d_in))
    packed = Packed.of(weight, bits)
    assert (packed.values() - weight).square().mean() < most**2 * weight.square().mean()
    assert torch.equal(packed.sums[:d_out], packed.integers().sum(1, dtype=torch.int32))
    assert not packed.sums[d_out:].any()
    if d_in % 128 == d_out % 16 == 0:
        assert packed.strips.numel() * 8 == d_in * d_out * BITS[bits]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_native_code_packs_as_defined(native: Native, bits: int, d_in: int, d_out: int, dtype: torch.dtype) -> None:
    weight = torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(d_in)).to(dtype)
    weight[d_out // 2] = 0
    expected, found = Packed.of(weight, bits), native.pack(weight, bits)
    assert found.strips.shape == expected.strips.shape
    assert (found.strips != expected.strips).float().mean() <= 0.01  # where two multipliers lose the same
    torch.testing.assert_close(found.scales, expected.scales, atol=1e-9, rtol=1e-2)
    assert torch.equal(found.sums[:d_out], found.integers().sum(1, dtype=torch.int32))
    torch.testing.assert_close(found.values().norm(), expected.values().norm(), atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("bits", BITS)
def test_rows_of_zeros_and_rows_that_stand_out_are_packed_too(bits: int) -> None:
    weight = torch.randn(20, 96, generator=torch.Generator().manual_seed(0)) / 10
    weight[3] = 0
    weight[5, 7] = 9.0
    weight[6, 8] = -9.0
    values = Packed.of(weight, bits).values()
    assert not values[3].any()
    torch.testing.assert_close(values[5:7], weight[5:7], atol=0.7, rtol=0)
    torch.testing.assert_close(values[5, 7], torch.tensor(9.0), atol=0.1, rtol=0)


@pytest.mark.parametrize("activation", [None, "gelu_new", "gelu", "relu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_native_code_equals_the_definition(
    native: Native, bits: int, d_in: int, d_out: int, dtype: torch.dtype, activation: str | None
) -> None:
    weight, bias, x, residual = drawn(bits, d_in, d_out, dtype)
    for given in (None, bias):
        for before in (None, residual):
            layer = Layer(weight, given, activation)
            expected, run = quantised_linear(x, layer, before), native.prepare(layer, dtype)
            whole = run(x, before)
            atol, rtol = (2e-4, 1e-4) if dtype is torch.float32 else (2e-2, 2e-2)
            torch.testing.assert_close(whole, expected, atol=atol, rtol=rtol)
            for rows in ROWS:
                some = run(x[-rows:].contiguous(), None if before is None else before[-rows:].contiguous())
                assert torch.equal(some, whole[-rows:]), f"{rows} rows"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_native_code_normalises_on_the_way(
    native: Native, bits: int, d_in: int, d_out: int, dtype: torch.dtype
) -> None:
    weight, bias, x, residual = drawn(bits, d_in, d_out, dtype)
    x[3] = 0
    generator = torch.Generator().manual_seed(d_in)
    gain, shift = ((torch.randn(d_in, generator=generator) + 1).to(dtype) for _ in range(2))
    layer = Layer(weight, bias, "gelu_new", LayerNorm(gain, shift, 1e-5))
    run = native.prepare(layer, dtype)
    whole = run.behind_norm(x, residual)
    expected = normed_linear(x, layer, residual)
    # A byte may be rounded to its other neighbour: it is off by 1/255 of its row's range, times a weight.
    torch.testing.assert_close(whole, expected, atol=0.05 if d_in < 8 else 0.02, rtol=2e-2)
    assert (whole.float() - expected.float()).abs().mean() < 2e-3
    for rows in ROWS:
        some = run.behind_norm(x[-rows:].contiguous(), residual[-rows:].contiguous())
        assert torch.equal(some, whole[-rows:]), f"{rows} rows"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", BITS)
def test_rows_are_gathered_from_the_table_that_is_multiplied_by(native: Native, bits: int, dtype: torch.dtype) -> None:
    table = Packed.of(torch.randn(53, 100, generator=torch.Generator().manual_seed(1)), bits)
    for count in (0, 1, 40):
        ids = torch.randint(0, 53, (count,), generator=torch.Generator().manual_seed(2))
        found = native.prepare(Layer(table), dtype).gather(ids)
        torch.testing.assert_close(found, gathered(ids, table, dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", BITS)
def test_rows_of_another_table_are_added_before_the_sum_is_rounded(
    native: Native, bits: int, dtype: torch.dtype
) -> None:
    random = torch.Generator().manual_seed(1)
    table = Packed.of(torch.randn(53, 100, generator=random), bits)
    other = ByteRows.of(torch.randn(20, 100, generator=random))
    ids, places = torch.randint(0, 53, (40,), generator=random), torch.randint(0, 20, (40,), generator=random)
    found = native.prepare(Layer(table), dtype).gather_sum(ids, other, places)
    expected = (gathered(ids, table, torch.float32) + other.values(places)).to(dtype)
    torch.testing.assert_close(found, expected, rtol=2**-7 if dtype is torch.bfloat16 else 1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_a_product_says_what_it_was_given(native: Native, bits: int) -> None:
    layer = Layer(Packed.of(torch.randn(53, 100, generator=torch.Generator().manual_seed(1)), bits))
    x, told = torch.randn(3, 100), list[int]()
    with listening(told.append):
        y = native.prepare(layer, torch.float32)(x)
    weight = layer.weight
    assert told == [bytes_of(x, weight.strips, weight.scales, weight.sums, y)]


def test_rows_that_are_all_alike_or_far_apart(native: Native) -> None:
    layer = Layer(Packed.of(torch.eye(40), 8))
    x = torch.zeros(4, 40)
    x[1], x[2], x[3] = 5.0, -1e-30, torch.linspace(-1e6, 3e6, 40)
    found = native.prepare(layer, torch.float32)(x)
    torch.testing.assert_close(found, x, atol=8e3, rtol=1e-2)
    torch.testing.assert_close(found[:3], x[:3], atol=1e-30, rtol=1e-2)


def test_random_shapes(native: Native) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(60):
        rows, d_in, d_out, bits = rng.randint(0, 90), rng.randint(1, 400), rng.randint(1, 200), rng.choice([8, 4])
        generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
        x = torch.randn(rows, d_in, generator=generator) * 10 ** rng.uniform(-3, 3)
        layer = Layer(Packed.of(torch.randn(d_out, d_in, generator=generator) / d_in**0.5, bits))
        expected, found = quantised_linear(x, layer) if rows else x @ torch.zeros(d_in, d_out), None
        found = native.prepare(layer, torch.float32)(x)
        scale = float(x.abs().max()) if rows else 1.0
        torch.testing.assert_close(found, expected, atol=1e-4 * scale, rtol=1e-3, msg=f"{rows} {d_in} {d_out} {bits}")
