"""From the words of the configuration to a Device. Knows what torch was built for; knows no model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from ridgeline.core.errors import ConfigError
from ridgeline.device import cpu, cuda
from ridgeline.device.base import Device

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# CUDA 13.0 is the one version that every torch from 2.11 to 2.13 is built for by default.
CUDA_INSTALL = 'pip install --force-reinstall "torch>=2.11,<2.14" --index-url https://download.pytorch.org/whl/cu130'


def choose(device: str, dtype: str, threads: int | None = None) -> Device:
    """device: auto, cpu or cuda. dtype: auto, float32, bfloat16 or float16. threads: of a CPU; None: as it sees fit.

    auto takes an NVIDIA GPU if torch can use one, and bfloat16 where the hardware computes it natively, otherwise
    float32. Raises ConfigError if cuda is asked for and torch cannot use it, or threads of a GPU.
    """
    assert device in ("auto", "cpu", "cuda"), device
    assert dtype == "auto" or dtype in DTYPES, dtype
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError(f"--device cuda: torch {torch.__version__} sees no CUDA device. {missing_cuda_hint() or ''}")
    on_gpu = device == "cuda" or (device == "auto" and has_cuda)
    if on_gpu and threads is not None:
        raise ConfigError(f"--threads {threads}: a GPU computes here and has none to set; leave it out or take a CPU")
    native = cuda.has_native_bfloat16() if on_gpu else cpu.has_native_bfloat16()
    auto = torch.bfloat16 if native else torch.float32
    chosen = auto if dtype == "auto" else DTYPES[dtype]
    return cuda.CudaDevice(chosen) if on_gpu else cpu.CpuDevice(chosen, threads)


def missing_cuda_hint(
    built_for: str | None = torch.version.cuda,
    find_program: Callable[[str], str | None] = shutil.which,
    driver: Path = Path("/proc/driver/nvidia/version"),
) -> str | None:
    """A sentence with the exact pip line if this machine has an NVIDIA GPU and torch was built without CUDA."""
    if built_for is not None or (find_program("nvidia-smi") is None and not driver.exists()):
        return None
    return f"An NVIDIA GPU is present, but this torch was built without CUDA; install one that has it: {CUDA_INSTALL}"
