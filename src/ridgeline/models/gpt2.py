"""GPT-2: learned positions, layer norm before each half of a block. Knows no cache layout, no request and no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ridgeline.attention.batch import Positions
from ridgeline.core.spec import ModelSpec
from ridgeline.models.linear import Adding, Embedding, Greedy, Linear, LinearSpec, Norm, Promise, SchemeOf, whole
from ridgeline.ops.sample import greedy

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q, k, v) -> out, all but the first [tokens, heads, head_dim]."""


W = TypeVar("W")
W_co = TypeVar("W_co", covariant=True)


class Source(Protocol[W_co]):
    """Where weights come from: a checkpoint, or a seed. Names are the checkpoint's, without a prefix. W: what it has
    for a matrix that is multiplied by, and a scheme takes."""

    def matrix(self, name: str, d_out: int, d_in: int) -> W_co:
        """A matrix [d_out, d_in] in the model's format; transposed on the way where the checkpoint has it otherwise."""
        ...

    def head(self, name: str, rows: int, width: int) -> W_co:
        """A matrix as it is [rows, width], which is multiplied by."""
        ...

    def table(self, name: str, rows: int, width: int) -> Tensor:
        """A matrix as it is [rows, width], which is only looked up."""
        ...

    def vector(self, name: str, width: int) -> Tensor: ...


def norm_of(source: Source[W], name: str, spec: ModelSpec, scheme: SchemeOf[W], compute: torch.dtype) -> Norm:
    weight, bias = (source.vector(f"{name}.{part}", spec.d_model).to(compute) for part in ("weight", "bias"))
    return scheme.norm(weight, bias, spec.norm_eps)


class SumOfEmbeddings:
    """A token's row and its position's, added."""

    def __init__(self, token: Embedding, position: Embedding) -> None:
        self._token, self._position = token, position

    def __call__(self, batch: Positions) -> Tensor:
        if isinstance(self._token, Adding):
            return self._token.plus(batch.tokens, self._position, batch.positions)
        return self._token(batch.tokens) + self._position(batch.positions)


class Block:
    """One layer. Its parts have names, so that a profiler may wrap `block.qkv` without a timer in the model."""

    def __init__(
        self, layer: int, spec: ModelSpec, source: Source[W], scheme: SchemeOf[W], compute: torch.dtype
    ) -> None:
        self._layer, self._shape = layer, (-1, 3, spec.heads, spec.head_dim)
        name, d, inner = f"h.{layer}", spec.d_model, spec.d_inner

        def linear(
            part: str, parts: tuple[str, ...], d_in: int, d_out: int, activation: str | None = None,
            norm: Norm | None = None,
        ) -> Linear:  # fmt: skip
            place = LinearSpec(f"{name}.{part}", parts, d_in, d_out, activation=activation, norm=norm)
            weight = source.matrix(f"{name}.{part}.weight", d_out, d_in)
            return scheme.linear(place, weight, source.vector(f"{name}.{part}.bias", d_out))

        self.norm_1 = norm_of(source, f"{name}.ln_1", spec, scheme, compute)
        self.qkv = linear("attn.c_attn", ("q", "k", "v"), d, 3 * d, norm=self.norm_1)
        self.attn_out = linear("attn.c_proj", ("out",), d, d)
        self.norm_2 = norm_of(source, f"{name}.ln_2", spec, scheme, compute)
        self.mlp_in = linear("mlp.c_fc", ("up",), d, inner, spec.activation, self.norm_2)
        self.mlp_out = linear("mlp.c_proj", ("down",), inner, d)

    def __call__(self, x: Promise, attend: Attend) -> Promise:
        q, k, v = self.qkv(self.norm_1(x)).view(self._shape).unbind(1)  # [tokens, heads, head_dim] each
        mixed = attend(self._layer, q, k, v)
        x = self.attn_out(mixed.reshape(x.shape), residual=x)
        out: Promise = self.mlp_out(self.mlp_in(self.norm_2(x)), residual=x)
        return out


class GPT2:
    """compute: the format of activations. Weights are read from the source one by one."""

    def __init__(self, spec: ModelSpec, source: Source[W], scheme: SchemeOf[W], compute: torch.dtype) -> None:
        self.spec = spec
        positions = source.table("wpe.weight", spec.max_positions, spec.d_model)
        self.norm = norm_of(source, "ln_f", spec, scheme, compute)
        head = LinearSpec("lm_head", ("vocab",), spec.d_model, spec.vocab, bias=False, norm=self.norm)
        if spec.tied_head:
            token, self.head = scheme.tied(head, source.head("wte.weight", spec.vocab, spec.d_model))
        else:
            token = scheme.embedding(source.table("wte.weight", spec.vocab, spec.d_model))
            self.head = scheme.linear(head, source.head("lm_head.weight", spec.vocab, spec.d_model), None)
        self.embedding = SumOfEmbeddings(token, scheme.embedding(positions))
        self.blocks = [Block(layer, spec, source, scheme, compute) for layer in range(spec.layers)]

    def hidden(self, batch: Positions, attend: Attend) -> Tensor:
        """The last layer's output before its norm, [N, d_model]."""
        x: Promise = self.embedding(batch)
        for block in self.blocks:
            x = block(x, attend)
        return whole(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: [rows, d_model]. Returns [rows, vocab]."""
        logits: Tensor = self.head(self.norm(hidden))
        return logits

    def greedy(self, hidden: Tensor) -> Tensor:
        """hidden: [rows, d_model]. Returns of each row the likeliest token, [rows] int64."""
        normed = self.norm(hidden)
        return self.head.greedy(normed)[1] if isinstance(self.head, Greedy) else greedy(self.head(normed))

    def products(self, x: Tensor) -> list[Callable[[], object]]:
        """The products of a step, each by itself, for whoever wants their kernels compiled.

        x: [rows, d_model], any values. Every layer's matrices are shaped like the first one's.
        """
        block, inner = self.blocks[0], x.new_zeros(x.shape[0], self.spec.d_inner)
        return [
            lambda: block.qkv(block.norm_1(x)),
            lambda: block.attn_out(x, residual=x),
            lambda: block.mlp_in(block.norm_2(x)),
            lambda: block.mlp_out(inner, residual=x),
            lambda: self.logits(x),
            lambda: self.greedy(x),
        ]
