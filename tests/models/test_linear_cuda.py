"""How a GPU holds matrices, through Triton's interpreter and on the library's road, whatever the machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ridgeline.models.gpt2_weights import random_gpt2
from ridgeline.models.linear import Dense, LinearSpec, Scheme, whole
from ridgeline.models.linear_cuda import CudaDense, CudaHead, CudaQuantised, pays_up_to
from ridgeline.models.many_rows import Hold, holding
from ridgeline.ops.float8 import Dynamic, by_row, quantised
from ridgeline.ops.gemv import Chosen, FewRows, Layer, fused_linear
from ridgeline.ops.linear import linear
from ridgeline.ops.sample import greedy
from ridgeline.ops.turns import Begun
from ridgeline.ops.words import FLOAT8, INT4, INT8, PLAIN, QUANTISE, Words
from tests.tensors import TINY, Definitions, cpu

VOCAB, WIDTH = 70, 64


def few() -> FewRows:
    pytest.importorskip("triton", reason="Triton is not installed: it comes for Linux on x86-64 alone")
    from ridgeline.ops.gemv_triton import Kernels

    return Kernels(dependent=False)


def kernels_or_none(wanted: bool) -> Chosen:
    return Chosen(few() if wanted else None, "")


def with_norm(scheme: Scheme, place: LinearSpec) -> tuple[object, object]:
    generator = torch.Generator().manual_seed(1)
    gain, shift = (torch.randn(WIDTH, generator=generator) for _ in range(2))
    norm = scheme.norm(gain, shift, 1e-5)
    weight = torch.randn(place.d_out, WIDTH, generator=generator) / 8
    bias = torch.randn(place.d_out, generator=generator) if place.bias else None
    return norm, scheme.linear(
        LinearSpec(place.name, place.parts, WIDTH, place.d_out, place.bias, place.activation, norm), weight, bias
    )


@pytest.mark.parametrize("rows", [1, 4, 5])
@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize(
    "place",
    [
        LinearSpec("qkv", ("q", "k", "v"), WIDTH, 40),
        LinearSpec("in", ("up",), WIDTH, 96, activation="gelu_new"),
        LinearSpec("head", ("vocab",), WIDTH, VOCAB, bias=False),
    ],
    ids=lambda place: place.name,
)
def test_few_rows_and_many_are_those_of_the_plain_scheme(rows: int, kernels: bool, place: LinearSpec) -> None:
    x = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(rows))
    residual = None if place.parts == ("vocab",) else torch.randn(rows, place.d_out)
    found = []
    for scheme in (CudaDense(kernels_or_none(kernels), torch.float32, most=4), Dense(linear, torch.float32)):
        norm, multiply = with_norm(scheme, place)
        found.append((multiply(norm(x)), whole(multiply(norm(x), residual=residual)), multiply(x)))  # type: ignore[operator]
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("looked_at", [True, False])
@pytest.mark.parametrize("kernels", [True, False])
def test_a_sum_with_a_residual_is_the_same_wherever_it_is_added(kernels: bool, looked_at: bool) -> None:
    """By the norm behind it, or by somebody who looks before."""
    rng, rows = torch.Generator().manual_seed(5), 6
    x, residual = (torch.randn(rows, WIDTH, generator=rng) for _ in range(2))
    found = []
    for scheme in (CudaDense(kernels_or_none(kernels), torch.float32, most=4), Dense(linear, torch.float32)):
        norm, out = with_norm(scheme, LinearSpec("out", ("out",), WIDTH, WIDTH))
        sum_ = out(x, residual=residual.clone())  # type: ignore[operator]
        if looked_at:
            whole(sum_)
        assert sum_.shape == (rows, WIDTH)
        again = out(norm(sum_), residual=sum_)  # type: ignore[operator]
        found.append((whole(sum_), whole(again)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("rows", [2, 5])
@pytest.mark.parametrize("kernels", [True, False])
def test_a_head_chooses_the_likeliest(rows: int, kernels: bool) -> None:
    norm, head = with_norm(
        CudaDense(kernels_or_none(kernels), torch.float32, most=4), LinearSpec("h", ("vocab",), WIDTH, VOCAB, False)
    )
    assert isinstance(head, CudaHead)
    logits, chosen = head.greedy(norm(torch.randn(rows, WIDTH)))  # type: ignore[operator]
    assert logits.shape == (rows, VOCAB)
    assert torch.equal(chosen, greedy(logits))


def test_a_tied_vocabulary_is_padded_once() -> None:
    scheme, table = CudaDense(Chosen(None, "none here"), torch.float32), torch.randn(VOCAB, WIDTH)
    embedding = scheme.embedding(table)
    head = scheme.linear(LinearSpec("h", ("vocab",), WIDTH, VOCAB, bias=False), table, None)
    held = head._layer.weight.words
    assert torch.equal(embedding(torch.arange(VOCAB)), table)
    held[5] = 7.0
    assert torch.equal(embedding(torch.tensor([5])), torch.full((1, WIDTH), 7.0))
    assert held.untyped_storage().nbytes() == 128 * WIDTH * 4


@pytest.mark.parametrize(
    ("name", "d_out", "d_in", "most"),
    [
        ("plain", 2304, 768, 8), ("plain", 1024, 4096, 4), ("plain", 4800, 1600, 2), ("plain", 50304, 768, 2),
        ("plain", 50304, 1600, 1), ("int8", 768, 3072, 4), ("int8", 6400, 1600, 2), ("int8", 1600, 6400, 1),
        ("fp8", 50304, 1600, 0), ("int4", 2304, 768, 4), ("int4", 768, 3072, 1), ("int4", 6400, 1600, 1),
        ("int4", 1600, 6400, 0),
    ],
)  # fmt: skip
def test_kernels_for_few_rows_multiply_as_many_as_they_pay_for(name: str, d_out: int, d_in: int, most: int) -> None:
    """Of no values: only what a matrix is counts."""
    kind = {"plain": PLAIN, "int8": INT8, "int4": INT4, "fp8": FLOAT8}[name]
    assert pays_up_to(Words(torch.empty(d_out, 0), None, d_in, kind)) == most


def test_more_rows_than_pay_take_the_other_way() -> None:
    calls: list[int] = []

    class Watched(Definitions):
        def linear(self, x: torch.Tensor, layer: Layer, residual: torch.Tensor | None = None) -> torch.Tensor:
            calls.append(x.shape[0])
            return fused_linear(x, layer, residual)

    scheme = CudaQuantised(QUANTISE["int4"], Chosen(Watched(), ""), torch.float32)
    norm, multiply = with_norm(scheme, LinearSpec("in", ("up",), WIDTH, 96))
    for rows in range(1, 8):
        multiply(norm(torch.randn(rows, WIDTH)))  # type: ignore[operator]
    assert calls == [1, 2, 3, 4]


@pytest.mark.parametrize("name", QUANTISE)
def test_few_rows_and_many_of_fewer_bits_agree(name: str) -> None:
    place, x = LinearSpec("in", ("up",), WIDTH, 96, activation="gelu_new"), torch.randn(3, WIDTH)
    found = []
    for kernels in (few(), None):
        norm, multiply = with_norm(CudaQuantised(QUANTISE[name], Chosen(kernels, ""), torch.float32), place)
        found.append(multiply(norm(x)))  # type: ignore[operator]
    torch.testing.assert_close(found[0], found[1], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [2, 6])
def test_a_model_adds_embeddings_and_chooses_as_with_the_plain_scheme(rows: int, tied: bool, kernels: bool) -> None:
    """Each choice is that of the model's own logits: kernels add up in another order than the plain scheme."""
    spec = replace(TINY, tied_head=tied)
    mine, theirs = (
        random_gpt2(spec, 3, scheme, cpu())
        for scheme in (CudaDense(kernels_or_none(kernels), torch.float32, most=4), Dense(linear, torch.float32))
    )
    batch = Begun(torch.arange(rows, dtype=torch.int32), torch.arange(rows) + 5, torch.arange(rows), torch.empty(0))
    x = mine.embedding(batch)
    assert torch.equal(x, theirs.embedding(batch))
    assert torch.equal(mine.greedy(x), greedy(mine.logits(x)))
    assert torch.equal(theirs.greedy(x), greedy(theirs.logits(x)))


def bfloat16_scheme(name: str, hold: Hold) -> CudaQuantised:
    return CudaQuantised(QUANTISE[name], Chosen(None, ""), torch.bfloat16, hold=hold)


@pytest.mark.parametrize("parts", [("up",), ("vocab",)])
def test_many_rows_of_8_bit_floats_are_those_of_the_widened_matrix_but_for_the_rounding_of_x(
    parts: tuple[str, ...],
) -> None:
    torch.manual_seed(7)
    is_head = parts == ("vocab",)
    place = LinearSpec("m", parts, WIDTH, VOCAB if is_head else 96, bias=not is_head)
    x, found = torch.randn(12, WIDTH).to(torch.bfloat16), []
    for hold in (holding(None, Dynamic("a scale a row", quantised, by_row)), holding(None)):
        scheme = bfloat16_scheme("fp8", hold)
        norm = scheme.norm(torch.ones(WIDTH).bfloat16(), torch.zeros(WIDTH).bfloat16(), 1e-5)
        weight = torch.randn(place.d_out, WIDTH, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16) / 8
        bias = torch.ones(place.d_out) if place.bias else None
        multiply = scheme.linear(replace(place, norm=norm), weight, bias)
        found.append((whole(multiply(norm(x))).float(), whole(multiply(x)).float()))
    for mine, theirs in zip(*found, strict=True):
        assert mine.shape == theirs.shape == (12, place.d_out)
        assert float((mine - theirs).norm() / theirs.norm()) < 0.05


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_rows_beyond_the_tiles_are_multiplied_by_the_whole_matrix(name: str) -> None:
    pytest.importorskip("triton", reason="Triton is not installed: it comes for Linux on x86-64 alone")
    from ridgeline.ops.many_triton import Tiles

    torch.manual_seed(8)
    place = LinearSpec("in", ("up",), WIDTH, 96, activation="gelu_new")
    tiled, whole = (
        CudaQuantised(QUANTISE[name], Chosen(None, ""), torch.float32, hold=hold)
        for hold in (holding(Tiles(4, True, most=10)), holding(None))
    )
    (norm, multiply), (_, expected) = with_norm(tiled, place), with_norm(whole, place)
    for rows in (9, 10, 11):
        x = torch.randn(rows, WIDTH)
        torch.testing.assert_close(
            multiply(norm(x)), expected(norm(x)), atol=2e-5, rtol=2e-5  # type: ignore[operator]
        )  # fmt: skip
