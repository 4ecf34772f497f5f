"""OPS: every operation once, for whoever goes through all of them (parity tests, benchmarks, the roofline)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ridgeline.device.base import Device
from ridgeline.ops import (
    activation,
    cases,
    dense,
    linear,
    norm,
    penalty,
    philox,
    quantised,
    sample,
    score,
    steps,
    tiles,
)
from ridgeline.ops.cases import Cost, Inputs, Shape
from ridgeline.ops.lazy import Lazy, is_triton


@dataclass(frozen=True, slots=True)
class Op:
    """reference: the definition. versions: what may run instead, by name, with the reference's signature.

    shapes: worth testing; sizes: worth timing, as GPT-2 124M has them; both as the op's `inputs` and `cost` read them.
    row_invariant: versions (and "reference") whose result for a row is bitwise the same whatever the other rows are.
    slack: by how much a value may be off beside what its format loses: rounding to integers comes before a product.
    streams: most of what it reads are weights, which a model reads from memory at every step, where other operations
    find in the cache what was written just before. limited: versions that are only for some devices and formats.
    """

    name: str
    reference: Callable[..., Any]
    versions: Mapping[str, Callable[..., Any]]
    shapes: tuple[Shape, ...]
    sizes: tuple[Shape, ...]
    inputs: Inputs
    cost: Cost
    row_invariant: frozenset[str]
    streams: bool = False
    slack: float = 0.0
    limited: Mapping[str, Callable[[Device], bool]] = field(default_factory=dict)

    def versions_for(self, device: Device) -> dict[str, Callable[..., Any]]:
        """Those that can run there, in its formats."""
        return {name: run for name, run in self.versions.items() if self.limited.get(name, _everywhere)(device)}


def _everywhere(_: Device) -> bool:
    return True


_ROWS, _ROW_SIZES = ((1, 64), (3, 256), (32, 768)), ((1, 768), (32, 768), (512, 768))
_WIDE_SIZES = ((1, 3072), (32, 3072), (512, 3072))
_LOGITS, _LOGIT_SIZES = ((1, 50), (3, 997), (40, 5003)), ((1, 50257), (8, 50257), (32, 50257))
_BY_ROW, _ALONE = frozenset({"reference", "torch"}), frozenset({"reference"})
_FUSED, _ON_GPU = "ridgeline.ops.fused_triton", {"triton": is_triton}
_LINEAR_SIZES = tuple((rows, *size) for size in ((768, 2304), (3072, 768), (768, 50257)) for rows in (1, 8, 32))
_A_CODE = 2e-2
"""What one of a row's bytes, rounded to its other neighbour, makes of a sum of weights of about 1 / sqrt(64)."""
_LINEARS: dict[str, linear.LinearKernel] = {
    "columns": linear.Columns(),
    "upcast": linear.Upcast(),
    "native": linear.Native(),
}
_FITS = {"columns": linear.is_columns, "upcast": linear.is_upcast, "native": linear.is_native}
_IN_TILES = {f"{name}, in tiles": tiles.InTiles(kernel, tiles.CPU_ROWS) for name, kernel in _LINEARS.items()}
_COMPILED: dict[str, linear.LinearKernel] = {"compiled": dense.by_native_code}
_FIT_FOR = _FITS | {f"{name}, in tiles": fits for name, fits in _FITS.items()} | {"compiled": dense.has_native_code}

OPS: tuple[Op, ...] = (
    Op(
        "layer_norm", norm.layer_norm_by_hand, {"torch": norm.layer_norm, "native": dense.norm_by_native_code},
        _ROWS, _ROW_SIZES, cases.norm_inputs, cases.norm_cost, _BY_ROW | {"native"},
        limited={"native": dense.has_native_code},
    ),
    Op(
        "add_layer_norm", norm.add_layer_norm_by_hand,
        {"torch": norm.add_layer_norm, "triton": Lazy(_FUSED, "add_layer_norm")},
        _ROWS, _ROW_SIZES, cases.add_norm_inputs, cases.add_norm_cost, _BY_ROW | {"triton"}, limited=_ON_GPU,
    ),
    Op(
        "gelu_new", activation.gelu_new_by_hand, {"torch": activation.gelu_new, "by row": activation.gelu_new_by_row},
        _ROWS, _WIDE_SIZES, cases.activation_inputs, cases.smooth_cost, frozenset({"by row"}),
    ),
    Op(
        "gelu", activation.gelu_by_hand, {"torch": activation.gelu},
        _ROWS, _WIDE_SIZES, cases.activation_inputs, cases.smooth_cost, _BY_ROW,
    ),
    Op(
        "relu", activation.relu, {},
        _ROWS, _WIDE_SIZES, cases.activation_inputs, cases.relu_cost, _ALONE,
    ),
    Op(
        "linear", linear.linear,
        _LINEARS | _IN_TILES | _COMPILED,
        tuple((rows, d_in, d_out) for rows in (1, 2, 3, 4, 5, 33) for d_in, d_out in ((64, 192), (768, 4099))),
        _LINEAR_SIZES, cases.linear_inputs, cases.linear_cost, frozenset(_IN_TILES | _COMPILED),
        streams=True, limited=_FIT_FOR,
    ),
    *(
        Op(
            f"linear_int{bits}", quantised.reference(bits), {"native": quantised.native(bits)},
            tuple((rows, d_in, d_out) for rows in (1, 2, 5, 9, 33) for d_in, d_out in ((64, 192), (768, 4099))),
            _LINEAR_SIZES, cases.packed_inputs(bits), cases.packed_cost(bits), frozenset({"native"}), streams=True,
            limited={"native": quantised.is_native},
        )
        for bits in (8, 4)
    ),
    *(
        Op(
            f"norm_linear_int{bits}", quantised.reference(bits), {"native": quantised.native(bits)},
            tuple((rows, d_in, d_out) for rows in (1, 2, 5, 33) for d_in, d_out in ((64, 192), (768, 4099))),
            _LINEAR_SIZES, cases.normed_packed_inputs(bits), cases.normed_packed_cost(bits), frozenset({"native"}),
            streams=True, slack=_A_CODE, limited={"native": quantised.is_native},
        )
        for bits in (8, 4)
    ),
    Op(
        "greedy", sample.greedy,
        {
            "in pieces": sample.greedy_in_pieces,
            "native": steps.likeliest,
            "triton": Lazy("ridgeline.ops.gemv_triton", "greedy"),
        },
        ((1, 50), (3, 256), (3, 512), (8, 50257)), _LOGIT_SIZES, cases.greedy_inputs, cases.greedy_cost,
        _ALONE | {"in pieces", "native", "triton"},
        limited=_ON_GPU | {"native": steps.has_native_code},
    ),
    Op(
        "sample", sample.sample, {},
        ((1, 50), (8, 50257)), _LOGIT_SIZES, cases.sample_inputs, cases.sample_cost, _ALONE,
    ),
    Op(
        "forbid", sample.forbid, {},
        ((1, 50), (8, 50257)), _LOGIT_SIZES, cases.forbid_inputs, cases.forbid_cost, _ALONE,
    ),
    Op(
        "penalize", penalty.penalize_by_hand, {"torch": penalty.penalize},
        _LOGITS, _LOGIT_SIZES, cases.penalize_inputs, cases.penalize_cost, _BY_ROW,
    ),
    Op(
        "add_bias", penalty.add_bias_by_hand, {"torch": penalty.add_bias},
        _LOGITS, _LOGIT_SIZES, cases.add_bias_inputs, cases.add_bias_cost, _BY_ROW,
    ),
    Op(
        "score", score.score_by_hand, {"torch": score.score},
        _LOGITS, _LOGIT_SIZES, cases.score_inputs, cases.score_cost, _BY_ROW,
    ),
    Op(
        "uniforms", philox.uniforms, {},
        ((1,), (1024,)), ((1,), (32,), (1024,)), cases.uniforms_inputs, cases.uniforms_cost, _ALONE,
    ),
)  # fmt: skip
