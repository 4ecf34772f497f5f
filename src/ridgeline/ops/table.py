"""OPS: every operation once, for whoever goes through all of them (parity tests, benchmarks, the roofline)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.ops import activation, linear, norm, penalty, philox, sample, score


@dataclass(frozen=True, slots=True)
class Op:
    """reference: the definition. versions: what may run instead, by name, with the reference's signature.

    shapes: sizes worth testing, as the op's tests read them. row_invariant: versions (and "reference") whose result
    for a row is bitwise the same whatever the other rows are.
    """

    name: str
    reference: Callable[..., Any]
    versions: Mapping[str, Callable[..., Any]]
    shapes: tuple[tuple[int, ...], ...]
    row_invariant: frozenset[str]


_ROWS = ((1, 64), (3, 256), (32, 768))
_LOGITS = ((1, 50), (3, 997), (40, 5003))
_BY_ROW = frozenset({"reference", "torch"})

OPS: tuple[Op, ...] = (
    Op("layer_norm", norm.layer_norm_by_hand, {"torch": norm.layer_norm}, _ROWS, _BY_ROW),
    Op("gelu_new", activation.gelu_new_by_hand, {"torch": activation.gelu_new}, _ROWS, _BY_ROW),
    Op("gelu", activation.gelu_by_hand, {"torch": activation.gelu}, _ROWS, _BY_ROW),
    Op("relu", activation.relu, {}, _ROWS, frozenset({"reference"})),
    Op(
        "linear",
        linear.linear,
        {"columns": linear.Columns(), "upcast": linear.Upcast(), "native": linear.Native()},
        tuple((rows, d_in, d_out) for rows in (1, 2, 3, 4, 5, 33) for d_in, d_out in ((64, 192), (768, 4099))),
        frozenset(),
    ),
    Op("greedy", sample.greedy, {}, ((1, 50), (8, 50257)), frozenset({"reference"})),
    Op("sample", sample.sample, {}, ((1, 50), (8, 50257)), frozenset({"reference"})),
    Op("forbid", sample.forbid, {}, ((1, 50), (8, 50257)), frozenset({"reference"})),
    Op("penalize", penalty.penalize_by_hand, {"torch": penalty.penalize}, _LOGITS, _BY_ROW),
    Op("add_bias", penalty.add_bias_by_hand, {"torch": penalty.add_bias}, _LOGITS, _BY_ROW),
    Op("score", score.score_by_hand, {"torch": score.score}, _LOGITS, _BY_ROW),
    Op("uniforms", philox.uniforms, {}, ((1,), (1024,)), frozenset({"reference"})),
)
