"""Advice: one sentence for the operator, where another choice would be faster. Knows costs and records; no machine.

Nothing is said where there is nothing faster, and nothing is promised that no record shows.
"""

from __future__ import annotations

from dataclasses import replace

from ridgeline.core.config import Config
from ridgeline.core.cost import Formats, StepShape, step_costs, total
from ridgeline.core.spec import ModelSpec


def on_a_cpu(spec: ModelSpec, formats: Formats, config: Config, int8_bits: float, *, compiles: bool) -> str | None:
    """What a token reads by default, and which options read less. formats: as served. int8_bits: of a weight with
    --quantize int8, which is worth having where kernels can be compiled (compiles)."""
    wide, narrow = _read(spec, formats), _read(spec, replace(formats, weight_bits=int8_bits))
    kept = spec.kv_bytes_per_token(1) * formats.kv_bits // 8
    choices = []
    if (
        config.model.quantize == "none"
        and formats.weight_bits > int8_bits
        and compiles
        and config.model.determinism == "off"
    ):
        choices.append(f"--quantize int8 reads {_mb(narrow)} (tokens change)")
    if formats.kv_bits == 32 and config.batching.kv_dtype == "auto":
        choices.append(f"--kv-dtype bfloat16 halves the {kept:,} bytes that a cached token takes")
    if not choices:
        return None
    return (
        f"weights of {formats.weight_bits:g} bits on this CPU: a token reads {_mb(wide)} of them; "
        f"faster: {', '.join(choices)}"
    )


def on_a_gpu(config: Config) -> str | None:
    """records/2026-11-26-mixed-h100: 2048 requests, newcomers seated together against one by one."""
    options = config.batching
    if options.batching != "continuous" or config.model.determinism != "off" or options.graphs == "eager":
        return None
    return (
        "for throughput of many requests on this GPU take --batching gathered --max-steps-per-visit 8 "
        "--launches-in-flight 2: 1.27 times as many tokens on an H100 (records/2026-11-26-mixed-h100), and later "
        "first ones"
    )


def _read(spec: ModelSpec, formats: Formats) -> int:
    """Bytes of weights that a decode step reads; its one token of cache does not count."""
    return total(step_costs(spec, StepShape.decode(1, 1), formats)).streamed_bytes


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
