"""Cost: bytes, arithmetic and launches of every operation of a step, from shapes alone. Knows no hardware and no time.

It is the cost of the algorithm, not of an implementation: every weight and every cached key and value is read once,
every intermediate result is written once and read once, every operation is one launch. What an implementation does on
top (widened copies, gathered caches, several launches) shows as the distance between prediction and time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ridgeline.core.spec import ModelSpec

REGIONS = ("embedding", "norm", "qkv", "attention", "projection", "mlp", "head", "sampling", "host")
"""Where a step's time can be, by place in the model; `host` is all that is no operation of the model."""


@dataclass(frozen=True, slots=True)
class Formats:
    """Bits of a stored value; of a weight on average, with what is stored for groups of them. compute: the number
    format that matrix products run in, as Ceilings.matrix names it. kv_scale_bits: of the scales that a token and head
    has for its key and for its value."""

    weight_bits: float
    kv_bits: int
    activation_bits: int
    compute: str
    kv_scale_bits: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence in a step: `queries` positions computed; the last of them attends `context` positions, itself
    included."""

    queries: int
    context: int

    @property
    def pairs(self) -> int:
        """Positions attended, over all queries."""
        return self.queries * (self.context - self.queries) + self.queries * (self.queries + 1) // 2


@dataclass(frozen=True, slots=True)
class StepShape:
    """wanted: positions whose logits are computed. padding: positions computed for nobody, beside those of the rows."""

    rows: tuple[Row, ...]
    wanted: int
    padding: int = 0

    @staticmethod
    def decode(batch: int, context: int) -> StepShape:
        """A step in which `batch` sequences make a token each, over `context` positions."""
        return StepShape((Row(1, context),) * batch, wanted=batch)

    @staticmethod
    def prefill(tokens: int, sequences: int = 1) -> StepShape:
        """Whole prompts of so many tokens."""
        return StepShape((Row(tokens, tokens),) * sequences, wanted=sequences)

    @property
    def positions(self) -> int:
        return sum(row.queries for row in self.rows) + self.padding


@dataclass(frozen=True, slots=True)
class OpCost:
    """streamed_bytes: weights and cache, which nothing reads again before the next step, so that their place in the
    memory hierarchy is given by the size of all that a step streams. local_bytes: intermediate results, written just
    before or read right after, so that their own size gives it. layer: None outside the blocks."""

    region: str
    name: str
    layer: int | None
    streamed_bytes: int
    local_bytes: int
    flops: int
    launches: int = 1

    @property
    def bytes(self) -> int:
        return self.streamed_bytes + self.local_bytes

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, FLOP a byte; 0 for an operation that moves nothing."""
        return self.flops / self.bytes if self.bytes else 0.0


def step_costs(spec: ModelSpec, shape: StepShape, formats: Formats) -> tuple[OpCost, ...]:
    """Every operation of a step, in the order they run."""
    made = _Maker(spec, shape, formats)
    ops = [made.embedding()]
    for layer in range(spec.layers):
        ops += made.block(layer)
    if shape.wanted:
        ops += made.end()
    return tuple(ops)


@dataclass(frozen=True, slots=True)
class StepBytes:
    """What the steps of a model stream at least, which is linear: weights once a turn, and the rest by count.

    turn: weights, for each decode iteration. position: embeddings, and the new key and value. context: a cached key and
    value, for each position that a row attends.
    """

    turn: int
    position: int
    context: int

    @staticmethod
    def of_model(spec: ModelSpec, formats: Formats) -> StepBytes:
        def streamed(batch: int, context: int) -> int:
            return total(step_costs(spec, StepShape.decode(batch, context), formats)).streamed_bytes

        one = streamed(1, 1)
        context = streamed(1, 2) - one
        position = streamed(2, 1) - one - context
        return StepBytes(one - position - context, position, context)

    def of(self, turns: int, positions: int, contexts: int) -> int:
        """positions: computed; contexts: attended, summed over rows and turns."""
        return turns * self.turn + positions * self.position + contexts * self.context


def resident_bytes(spec: ModelSpec, weight_bits: float) -> int:
    """What the weights occupy. More than a step reads: of the embedding and position tables only rows are read, but a
    head that is the embedding table is read whole, once."""
    return int(spec.parameters * weight_bits / 8)


def total(costs: Sequence[OpCost], region: str | None = None) -> OpCost:
    """The sum of a region, or of all, as one cost."""
    chosen = [cost for cost in costs if region in (None, cost.region)]
    return OpCost(
        region=region or "step",
        name="total",
        layer=None,
        streamed_bytes=sum(c.streamed_bytes for c in chosen),
        local_bytes=sum(c.local_bytes for c in chosen),
        flops=sum(c.flops for c in chosen),
        launches=sum(c.launches for c in chosen),
    )


# Additions, multiplications and such of one value: mean and variance, scaling and shifting; a few for softmax. They
# never bind, and are here so that intensity is not zero.
_NORM_FLOPS, _ACTIVATION_FLOPS, _SOFTMAX_FLOPS, _SAMPLE_FLOPS = 8, 8, 5, 1


class _Maker:
    def __init__(self, spec: ModelSpec, shape: StepShape, formats: Formats) -> None:
        self.spec, self.shape = spec, shape
        self.positions = shape.positions
        self._weight, self._value = formats.weight_bits, formats.activation_bits
        self._token_bits = 2 * (spec.d_model * formats.kv_bits + spec.heads * formats.kv_scale_bits)

    def weights(self, values: int) -> int:
        return int(values * self._weight / 8)

    def values(self, count: int) -> int:
        return count * self._value // 8

    def embedding(self) -> OpCost:
        """Two gathered rows a position, and their sum."""
        count = self.positions * self.spec.d_model
        return OpCost("embedding", "embedding", None, self.weights(2 * count), self.values(count), count)

    def block(self, layer: int) -> list[OpCost]:
        d, inner, n = self.spec.d_model, self.spec.d_inner, self.positions
        return [
            self.norm("norm_1", layer, n),
            self.linear("qkv", "qkv", layer, n, d, 3 * d),
            self.attention(layer),
            self.linear("projection", "attn_out", layer, n, d, d, residual=True),
            self.norm("norm_2", layer, n),
            self.linear("mlp", "mlp_in", layer, n, d, inner, activation=True),
            self.linear("mlp", "mlp_out", layer, n, inner, d, residual=True),
        ]

    def end(self) -> list[OpCost]:
        wanted, vocab = self.shape.wanted, self.spec.vocab
        logits = wanted * vocab
        return [
            self.norm("norm", None, wanted),
            self.linear("head", "head", None, wanted, self.spec.d_model, vocab, bias=False),
            OpCost("sampling", "sampling", None, 0, self.values(logits), _SAMPLE_FLOPS * logits),
        ]

    def norm(self, name: str, layer: int | None, rows: int) -> OpCost:
        count = rows * self.spec.d_model
        return OpCost(
            "norm", name, layer, self.values(2 * self.spec.d_model), self.values(2 * count), _NORM_FLOPS * count
        )

    def linear(
        self,
        region: str,
        name: str,
        layer: int | None,
        rows: int,
        d_in: int,
        d_out: int,
        *,
        bias: bool = True,
        residual: bool = False,
        activation: bool = False,
    ) -> OpCost:
        streamed = self.weights(d_in * d_out) + (self.values(d_out) if bias else 0)
        local = self.values(rows * (d_in + d_out * (2 if residual else 1)))
        flops = 2 * rows * d_in * d_out + rows * d_out * (bias + residual + _ACTIVATION_FLOPS * activation)
        return OpCost(region, name, layer, streamed, local, flops)

    def attention(self, layer: int) -> OpCost:
        """Every cached key and value once for its sequence; the new ones are written. Scores stay on the way (the
        algorithm of FlashAttention, Dao et al. 2022), so they cost arithmetic and no bytes. A padded position attends
        itself."""
        spec, rows, padding = self.spec, self.shape.rows, self.shape.padding
        cached = sum(row.context for row in rows) + padding
        pairs = sum(row.pairs for row in rows) + padding
        local = self.values(2 * self.positions * spec.d_model)
        flops = 4 * spec.d_model * pairs + _SOFTMAX_FLOPS * spec.heads * pairs
        return OpCost("attention", "attention", layer, (cached + self.positions) * self._token_bits // 8, local, flops)
