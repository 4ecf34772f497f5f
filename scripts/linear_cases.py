"""GPT-2 124M's matrices at random, and all of them in the order of a token, for check_gpu_linear.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scripts.gpu_bench import Bench, Numbers
from torch import Tensor

from ridgeline.ops import words
from ridgeline.ops.gemv import Layer, LayerNorm, fused_linear, layer
from ridgeline.ops.sample import greedy
from ridgeline.ops.words import QUANTISE, Words

PLACES = {"qkv": (768, 2304), "attn_out": (768, 768), "mlp_in": (768, 3072), "mlp_out": (3072, 768)}
HEAD, TINY_HEAD, LAYERS = (768, 50257), (32, 70), 12
FORMATS = tuple(QUANTISE)
_NORMED = {"qkv", "mlp_in", "head"}


def numbers_of(bench: Bench, place: str) -> tuple[int, int]:
    """d_in, d_out."""
    if place == "head":
        return bench.pick(HEAD, TINY_HEAD)
    d_in, d_out = PLACES[place]
    return bench.pick((d_in, d_out), (d_in // 24, d_out // 24))


def held(bench: Bench, place: str, kind: str = "plain", shape: tuple[int, int] | None = None) -> Layer:
    """With its norm, bias and activation. Results are about as large as x."""
    d_in, d_out = shape or numbers_of(bench, place)
    weight = bench.randn(d_out, d_in, dtype=torch.float32).div_(d_in**0.5).to(bench.half)
    pack: Callable[[Tensor], Words] = words.plain if kind == "plain" else QUANTISE[kind]
    norm = LayerNorm(bench.randn(d_in), bench.randn(d_in), 1e-5) if place in _NORMED else None
    bias = None if place == "head" else bench.randn(d_out)
    return layer(pack(weight), bias, norm, "gelu_new" if place == "mlp_in" else None)


def error_norm(found: Tensor, expected: Tensor) -> float:
    return round(float((found.float() - expected.float()).norm() / expected.float().norm()), 6)


Multiply = Callable[[Tensor, Layer, Tensor | None], Tensor]
Choose = Callable[[Tensor, Layer], tuple[Tensor, Tensor]]


class Chain:
    """Every product of a token. Where attention would be, the queries go on as they are."""

    def __init__(self, bench: Bench, kind: str) -> None:
        self.bench = bench
        count = bench.pick(LAYERS, 2)
        self.layers = [{place: held(bench, place, kind) for place in PLACES} for _ in range(count)]
        self.head = held(bench, "head", kind)
        every = [of.weight for parts in self.layers for of in parts.values()] + [self.head.weight]
        self.moved = sum(weight.words.numel() * weight.words.element_size() for weight in every)

    def __call__(self, x: Tensor, multiply: Multiply, choose: Choose | None) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden state, logits, tokens. choose: None: the head is a product like others, and torch chooses."""
        for parts in self.layers:
            q = multiply(x, parts["qkv"], None)[:, : x.shape[1]]
            x = multiply(q, parts["attn_out"], x)
            x = multiply(multiply(x, parts["mlp_in"], None), parts["mlp_out"], x)
        if choose is not None:
            return (x, *choose(x, self.head))
        logits = multiply(x, self.head, None)
        return x, logits, greedy(logits)

    def timed(self, rows: int, multiply: Multiply, choose: Choose | None) -> Numbers:
        """Microseconds of a whole token; the hidden state against one in float32 that is rounded where this one is."""
        x = self.bench.randn(rows, numbers_of(self.bench, "qkv")[0])
        kept: list[tuple[Tensor, Tensor, Tensor]] = []

        def run() -> None:
            kept[:] = [self(x, multiply, choose)]

        replay = self.bench.capture(run)
        for part in kept[0] if kept else ():
            part.fill_(1)
        replay()
        first = [part.clone() for part in kept[0]]
        found = self.bench.timed(replay, moved=self.moved)
        expected = self(x, fused_linear, lambda given, _: (given, given))[0]
        hidden, logits, tokens = kept[0]
        error = error_norm(hidden, expected)
        again = all(torch.equal(a, b) for a, b in zip(first, kept[0], strict=True))
        return found | {
            "error norm": error, "right": error < 5e-2, "likeliest": torch.equal(tokens, greedy(logits)),
            "same again": again,
        }  # fmt: skip
