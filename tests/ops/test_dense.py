"""Plain matrices: native code equals the definition at odd sizes in every form that it has for some machine.

A row's result is bitwise the same at every number of rows.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ridgeline.device import jit
from ridgeline.ops.dense import SOURCE, Native, Plain, plain_linear
from ridgeline.ops.norm import layer_norm_by_hand

FORMS = {
    "as this machine is": (),
    "without a matrix unit": ("AMX_BF16",),
    "as AVX2": ("AMX_BF16", "AVX512F", "AVX512BF16", "AVX512VNNI"),
    "as SSE or Neon": ("AMX_BF16", "AVX512F", "AVX512BF16", "AVX512VNNI", "AVXVNNI", "AVX2"),
}
"""What the source is told that the machine lacks."""
FORMATS = {
    "float32": (torch.float32, torch.float32),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "bfloat16 by float32": (torch.bfloat16, torch.float32),
    "float16 by float32": (torch.float16, torch.float32),
}
"""Weights, and activations."""
SHAPES = [(64, 16), (1, 1), (7, 5), (33, 17), (65, 50), (96, 33), (768, 80), (100, 301), (3072, 20), (32, 1)]
ROWS = (*range(1, 18), 31, 32, 33, 47, 48, 49, 64, 70)


@pytest.fixture(scope="module", params=[(form, threads) for form in FORMS for threads in (1, 3)], ids=str)
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Native:
    """With one thread, and with more than some matrices have work for."""
    form, threads = request.param
    lacks = "".join(f"#undef __{name}__\n" for name in FORMS[form])
    try:
        compiler = jit.Compiler.find(language=jit.CPP)
    except jit.CannotBuild as error:
        pytest.skip(str(error))
    return Native(jit.load(lacks + jit.source_of(SOURCE), tmp_path_factory.getbasetemp(), compiler), threads)


def drawn(formats: str, d_in: int, d_out: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight, bias, activations, residual."""
    weights, compute = FORMATS[formats]
    generator = torch.Generator().manual_seed(d_in * 1000 + d_out)
    weight, bias, x, residual = (
        torch.randn(*size, generator=generator)
        for size in ((d_out, d_in), (d_out,), (max(ROWS), d_in), (max(ROWS), d_out))
    )
    return (weight / d_in**0.5).to(weights), bias, x.to(compute), residual.to(compute)


def assert_near(found: Tensor, expected: Tensor, about: str = "") -> None:
    atol, rtol = (2e-5, 1e-4) if found.dtype is torch.float32 else (2e-2, 2e-2)
    torch.testing.assert_close(found, expected, atol=atol, rtol=rtol, msg=lambda said: f"{about} {said}")


@pytest.mark.parametrize("activation", [None, "gelu_new", "gelu", "relu"])
@pytest.mark.parametrize("formats", FORMATS)
@pytest.mark.parametrize(("d_in", "d_out"), SHAPES)
def test_native_code_equals_the_definition(
    native: Native, formats: str, d_in: int, d_out: int, activation: str | None
) -> None:
    weight, bias, x, residual = drawn(formats, d_in, d_out)
    for given in (None, bias):
        for before in (None, residual):
            layer = Plain(weight, given, activation)
            run = native.prepare(layer, x.dtype)
            whole = run(x, before)
            assert_near(whole, plain_linear(x, layer, before))
            for rows in ROWS:
                some = run(x[-rows:].contiguous(), None if before is None else before[-rows:].contiguous())
                assert torch.equal(some, whole[-rows:]), f"{rows} rows"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("d", [1, 7, 16, 100, 768])
def test_a_norm_equals_the_definition(native: Native, d: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(d)
    weight, bias, x = (torch.randn(*size, generator=generator) for size in ((d,), (d,), (40, d)))
    x = (3 * x + 5).to(dtype)
    run = native.norm(weight, bias, 1e-5, dtype)
    whole = run(x)
    assert_near(whole, layer_norm_by_hand(x, weight, bias, 1e-5))
    for rows in (0, 1, 9, 39):
        assert torch.equal(run(x[:rows].contiguous()), whole[:rows]), f"{rows} rows"


@pytest.mark.parametrize("formats", FORMATS)
@pytest.mark.parametrize("d", [1, 7, 16, 100])
def test_rows_are_looked_up_and_added(native: Native, d: int, formats: str) -> None:
    weights, compute = FORMATS[formats]
    generator = torch.Generator().manual_seed(d)
    first, second = (torch.randn(rows, d, generator=generator).to(weights) for rows in (53, 20))
    one, two = native.rows(first, compute), native.rows(second, compute)
    for count in (0, 1, 40):
        ids = torch.randint(0, 53, (count,), generator=generator)
        places = torch.randint(0, 20, (count,), generator=generator, dtype=torch.int32)
        assert torch.equal(one(ids), first[ids].to(compute))
        summed = (first[ids].to(torch.float32) + second[places].to(torch.float32)).to(compute)
        assert torch.equal(one.plus(ids, two, places), summed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_number_of_16_bits_is_read_as_it_is(native: Native, dtype: torch.dtype) -> None:
    numbers = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(dtype)
    weight = numbers[numbers.isfinite()].view(-1, 16).contiguous()  # [outputs, 16]
    found = native.prepare(Plain(weight), torch.float32)(torch.eye(16))
    assert torch.equal(found, weight.t().to(torch.float32))


def test_matrices_need_not_begin_with_a_line(native: Native, tmp_path: Path) -> None:
    for formats in FORMATS:
        weight, bias, x, _ = drawn(formats, 96, 33)
        shifted = torch.cat([weight.new_zeros(1), weight.flatten()])[1:].view(weight.shape)
        inside = torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
        run, moved = (native.prepare(Plain(some, bias), x.dtype) for some in (weight, shifted))
        assert torch.equal(moved(inside), run(x))


def test_random_shapes(native: Native) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(60):
        rows, d_in, d_out, formats = (
            rng.randint(0, 90), rng.randint(1, 400), rng.randint(1, 200), rng.choice([*FORMATS])
        )  # fmt: skip
        weights, compute = FORMATS[formats]
        generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
        x = torch.randn(rows, d_in, generator=generator).to(compute)
        layer = Plain((torch.randn(d_out, d_in, generator=generator) / d_in**0.5).to(weights))
        found = native.prepare(layer, compute)(x)
        assert_near(found, plain_linear(x, layer), f"{rows} {d_in} {d_out} {formats}")
