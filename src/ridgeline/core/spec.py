"""ModelSpec: the shape of a decoder as integers. Knows sizes and bytes; knows no weights and no tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["gelu_new", "gelu", "relu"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A GPT-2-shaped decoder. Names follow the field; every field changes the arithmetic.

    scale_attention: divide scores by sqrt(head_dim). scale_by_layer: divide them by (layer + 1) as well.
    """

    layers: int
    d_model: int
    heads: int
    d_inner: int
    vocab: int
    max_positions: int
    norm_eps: float = 1e-5
    activation: Activation = "gelu_new"
    tied_head: bool = True
    scale_attention: bool = True
    scale_by_layer: bool = False

    @property
    def head_dim(self) -> int:
        return self.d_model // self.heads

    @property
    def parameters(self) -> int:
        d, inner = self.d_model, self.d_inner
        block = 3 * d * d + 3 * d + d * d + d + 2 * d * inner + inner + d + 4 * d
        head = 0 if self.tied_head else self.vocab * d
        return (self.vocab + self.max_positions) * d + self.layers * block + 2 * d + head

    def kv_bytes_per_token(self, bytes_per_value: int) -> int:
        """K and V of one token over all layers."""
        return 2 * self.layers * self.d_model * bytes_per_value


def _gpt2(layers: int, d_model: int, heads: int) -> ModelSpec:
    return ModelSpec(layers, d_model, heads, 4 * d_model, vocab=50257, max_positions=1024)


GPT2_SHAPES: dict[str, ModelSpec] = {
    "gpt2": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
    "distilgpt2": _gpt2(6, 768, 12),
}
