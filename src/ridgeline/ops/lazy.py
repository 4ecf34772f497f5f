"""Versions of operations that are loaded when they first run: files that import Triton. Knows no operation."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ridgeline.device.base import Device


@dataclass(frozen=True, slots=True)
class Lazy:
    """The attribute of a module, as a version of an operation."""

    module: str
    name: str

    def __call__(self, *given: Any) -> Any:
        return getattr(importlib.import_module(self.module), self.name)(*given)


def is_triton(device: Device) -> bool:
    """Whether kernels written in Triton run there."""
    return device.torch_device.type == "cuda" and find_spec("triton") is not None
