"""Attending: which backend attends, over a cache of which format, on this device. Joins attention with the options.

Imports torch only when it chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ridgeline.core.config import Config
from ridgeline.core.cost import Formats
from ridgeline.core.errors import ConfigError
from ridgeline.core.spec import ModelSpec
from ridgeline.menu import chosen

if TYPE_CHECKING:
    import torch

    from ridgeline.attention.base import AnyAttention
    from ridgeline.device.base import Device
    from ridgeline.runner.determinism import Determinism


Opening = Literal["open", "open_soon"]
"""Wait for a kernel that must be compiled first, or begin without it where the backend can."""


@dataclass(frozen=True, slots=True)
class Attending:
    """A backend, the format of its cache, and what the operator should know of the choice."""

    attention: AnyAttention
    kv_dtype: torch.dtype
    block_size: int
    note: str | None = None

    def formats(self, quantize: str, device: Device) -> Formats:
        """What a step reads and computes in. quantize: how weights are held, a name in MENU."""
        return Formats(
            weight_bits=chosen("quantize", quantize).bits(device),
            kv_bits=8 * self.kv_dtype.itemsize,
            activation_bits=8 * device.compute.itemsize,
            compute=str(device.compute).removeprefix("torch."),
            kv_scale_bits=self.attention.scale_bits(self.kv_dtype),
        )


_ATTENTION = {"cpu": ("native", "reference", "by-row"), "cuda": ("paged", "reference", "paged-rows", "by-row")}
"""What --attention auto takes on a device: the first that the level of determinism admits and that can be had."""


def choose_attention(
    config: Config, spec: ModelSpec, device: Device, cache: Path | None, how: Opening = "open"
) -> Attending:
    """cache: where compiled kernels are kept. how: whether a backend is opened only when its kernels are there.

    Raises ConfigError where no backend serves what was asked for.
    """
    from ridgeline.attention.base import CannotAttend, SteadyAttention

    options, level = config.batching, determinism(config)
    dtype = chosen("kv_dtype", options.kv_dtype).stored(device.dtype)
    asked = options.attention
    offered = (name for name in _ATTENTION[device.torch_device.type] if level.admits(chosen("attention", name)))
    reasons: list[str] = []
    for name in offered if asked == "auto" else (asked,):
        try:
            backend = chosen("attention", name)
            attention = getattr(backend, how, backend.open)(spec, dtype, device, cache)
        except CannotAttend as error:
            reasons.append(str(error))
            continue
        if options.graphs == "graph" and not isinstance(attention, SteadyAttention):
            reasons.append(
                f"{name} attention is planned by the host in every step, so --graphs graph has no use for it"
            )
        elif not attention.allows(size := config.limits.block_size or attention.prefers):
            reasons.append(f"--attention {name} takes no blocks of --block-size {size}")
        else:
            fallen_back = f"{reasons[0]}; it is {name} instead" if reasons else None
            return Attending(attention, dtype, size, fallen_back or getattr(attention, "note", None))
    option = f"--kv-dtype {options.kv_dtype}" if asked == "auto" else f"--attention {asked}"
    raise ConfigError(f"{option}: {', and '.join(reasons)}; leave {option.split()[0]} out")


def determinism(config: Config) -> Determinism:
    level: Determinism = chosen("determinism", config.model.determinism)()
    return level


def native_sources() -> dict[str, str]:
    """The kernels that a CPU compiles for itself: what they do, and their source."""
    from ridgeline.attention import native
    from ridgeline.device.jit import source_of
    from ridgeline.ops import dense, quantised, steps

    return {
        "attention": source_of(native.SOURCE),
        "products of plain matrices": source_of(dense.SOURCE),
        "products of integers": source_of(quantised.SOURCE),
        "decode steps": source_of(steps.SOURCE),
    }
