"""What `--quantize` names, and how each kind of device holds it. Knows schemes; knows no matrix."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ridgeline.core.errors import ConfigError
from ridgeline.device.base import Device
from ridgeline.models import quantised
from ridgeline.models.linear import Dense, Offered, Scheme
from ridgeline.models.linear_cpu import CpuDense
from ridgeline.models.linear_cuda import CudaDense, CudaQuantised
from ridgeline.models.many_rows import Hold, holding
from ridgeline.ops.float8 import scaled_products
from ridgeline.ops.gemv import few_rows, has_float8
from ridgeline.ops.many import many_rows
from ridgeline.ops.packed import BITS
from ridgeline.ops.words import QUANTISE


def on_gpu(device: Device) -> bool:
    return device.torch_device.type == "cuda"


class AsStored:
    """In the model's own format."""

    exact = True

    @classmethod
    def of(cls, device: Device, cache: Path | None) -> Scheme:
        if not on_gpu(device):
            return CpuDense.of(device, cache)
        return CudaDense(few_rows(device.torch_device, device.compute, cache), device.compute)

    @classmethod
    def bits(cls, device: Device) -> float:
        return Dense.bits(device)


class _Packed:
    """on_cpu: what a CPU does; None: nothing. gpu_bits: of a weight on a GPU, multipliers included."""

    exact = False
    name: ClassVar[str]
    on_cpu: ClassVar[Offered | None]
    gpu_bits: ClassVar[float]

    @classmethod
    def of(cls, device: Device, cache: Path | None) -> Scheme:
        """Raises ConfigError."""
        if not on_gpu(device):
            return cls._cpu().of(device, cache)
        if cls.name == "fp8" and not has_float8(device.torch_device):
            raise ConfigError(
                f"--quantize fp8: {device.name} has no 8-bit floats (compute capability 8.9 and up have); take int8"
            )
        where, compute = device.torch_device, device.compute
        hold, notes = cls._holding(device, cache)
        few = few_rows(where, compute, cache)
        return CudaQuantised(QUANTISE[cls.name], few, compute, hold=hold, notes=notes)

    @classmethod
    def _holding(cls, device: Device, cache: Path | None) -> tuple[Hold, tuple[str, ...]]:
        """Who multiplies many rows, and what is missing."""
        chosen = many_rows(device.torch_device, device.compute, cls.name, cache)
        return holding(chosen.kernels), () if chosen.kernels is not None else (chosen.note,)

    @classmethod
    def bits(cls, device: Device) -> float:
        return cls.gpu_bits if on_gpu(device) else cls._cpu().bits(device)

    @classmethod
    def _cpu(cls) -> Offered:
        if cls.on_cpu is None:
            raise ConfigError(f"--quantize {cls.name}: a CPU has no 8-bit floats; take int8, or --device cuda")
        return cls.on_cpu


class Int8(_Packed):
    name, on_cpu, gpu_bits = "int8", quantised.Int8, 8.0


class Int4(_Packed):
    name, on_cpu, gpu_bits = "int4", quantised.Int4, BITS[4]


class Float8(_Packed):
    name, on_cpu, gpu_bits = "fp8", None, 8.0

    @classmethod
    def _holding(cls, device: Device, cache: Path | None) -> tuple[Hold, tuple[str, ...]]:
        """Both operands in 8 bits where the library multiplies them."""
        chosen = scaled_products(device.torch_device, device.compute, cache)
        if chosen.scaled is not None:
            return holding(None, chosen.scaled), ()
        hold, notes = super()._holding(device, cache)
        return hold, (chosen.note, *notes)
