"""A GPT-2's matrices at random in every scheme, as a model holds them on a GPU, for check_gpu_quant.py."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scripts.gpu_bench import Bench
from torch import Tensor

from ridgeline.models.many_rows import Deferred, Float8Rows, InTiles, Library, Many, Unnormed, Widened
from ridgeline.ops import float8
from ridgeline.ops.float8 import Dynamic, Scaled
from ridgeline.ops.gemv import FewRows, Layer, LayerNorm, layer
from ridgeline.ops.many_triton import Shape, Tiles
from ridgeline.ops.words import PLAIN, QUANTISE, Words, plain

WIDTHS = {"gpt2": (768, 3072), "gpt2-xl": (1600, 6400)}
VOCAB = 50304
PLACES = ("qkv", "attn_out", "mlp_in", "mlp_out", "head")
FLUSH_BYTES, MOST_COPIES, FEW_COPIES = 150_000_000, 96, 3
SCHEMES = ("none", *QUANTISE)


def sides(bench: Bench, model: str, place: str) -> tuple[int, int]:
    """d_in, d_out."""
    d, inner = bench.pick(WIDTHS[model], (64, 96))
    vocab = bench.pick(VOCAB, 128)
    return {"qkv": (d, 3 * d), "attn_out": (d, d), "mlp_in": (d, inner), "mlp_out": (inner, d), "head": (d, vocab)}[
        place
    ]


@dataclass(frozen=True, slots=True)
class Held:
    """A matrix with what is computed around it."""

    weight: Words
    bias: Tensor | None
    norm: Deferred | None
    activation: str | None
    layer: Layer

    def called(self, many: Many, x: Tensor, residual: Tensor | None) -> Tensor:
        y = many(x if self.norm is None else Unnormed(x, self.norm))
        return y if residual is None else y.add_(residual)

    def by_few(self, few: FewRows, x: Tensor, residual: Tensor | None) -> Tensor:
        return few.linear(x, self.layer, residual)


def held(bench: Bench, model: str, place: str, scheme: str) -> Held:
    d_in, d_out = sides(bench, model, place)
    dense = bench.randn(d_out, d_in, dtype=torch.float32).div_(d_in**0.5).to(bench.half)
    weight = plain(dense) if scheme == "none" else QUANTISE[scheme](dense)
    bias = None if place == "head" else bench.randn(d_out)
    norm = LayerNorm(bench.randn(d_in), bench.randn(d_in), 1e-5) if place in ("qkv", "mlp_in", "head") else None
    activation = "gelu_new" if place == "mlp_in" else None
    deferred = None if norm is None else Deferred(norm)
    return Held(weight, bias, deferred, activation, layer(weight, bias, norm, activation))


def copies(bench: Bench, model: str, place: str, scheme: str, rows: int) -> int:
    """So many that none is still in L2 when its turn comes; where arithmetic binds, a few."""
    d_in, d_out = sides(bench, model, place)
    bits = {"none": 16, "int4": 4}.get(scheme, 8)
    wanted = FLUSH_BYTES * 8 // (d_in * d_out * bits) + 1
    return bench.pick(FEW_COPIES if rows >= 1024 else max(FEW_COPIES, min(MOST_COPIES, wanted)), 2)


def tiles(bench: Bench, most: int, shape: Shape | None = None) -> Tiles:
    programs = 4 if bench.dry else torch.cuda.get_device_properties(bench.device).multi_processor_count
    return Tiles(programs, bench.dry or torch.cuda.get_device_capability(bench.device) >= (9, 0), most, shape)


def scaled(bench: Bench, name: str) -> Scaled:
    """In a dry run by the definition: Triton's interpreter rounds 8-bit floats wrongly."""
    if bench.dry:
        return Dynamic(name, float8.quantised, float8.PRODUCTS[name])
    from ridgeline.ops.float8_triton import quantised

    return Dynamic(name, quantised, float8.PRODUCTS[name])


def many_of(bench: Bench, way: str, of: Held) -> Many:
    """way: library, tiles, whole (widened, then multiplied), or a name in float8.PRODUCTS."""
    weight, bias, activation = of.weight, of.bias, of.activation
    if weight.kind == PLAIN:
        return Library(weight.words, bias, activation)
    if way == "tiles":
        return InTiles(tiles(bench, 1 << 30), weight, bias, activation, bench.half)
    if way == "whole":
        return Widened(weight, bias, activation, bench.half, tiles(bench, 0))
    return Float8Rows(scaled(bench, way), weight, bias, activation)


def ways(scheme: str) -> tuple[str, ...]:
    return {"none": ("library",), "fp8": (*float8.PRODUCTS, "tiles", "whole")}.get(scheme, ("tiles", "whole"))
