"""Datasheets: what vendors say of their GPUs, to stand beside what was measured. Nothing is divided by these figures.

Dense rates at boost clock. Where a document gives a rate with sparsity, half of it stands here; what it does not give
is left out.
"""

from __future__ import annotations

import re

from ridgeline.core.ceilings import Datasheet

# In TFLOP/s (or TOP/s), by the names that Ceilings.matrix has.
_A100 = {"float32": 19.5, "tfloat32": 156, "bfloat16": 312, "float16": 312, "int8": 624}
_HOPPER = {"float32": 67, "tfloat32": 494.5, "bfloat16": 989.5, "float16": 989.5, "int8": 1979, "float8_e4m3fn": 1979}
_L40S = {"float32": 91.6, "tfloat32": 183, "bfloat16": 362, "float16": 362, "int8": 733, "float8_e4m3fn": 733}
_L4 = {"float32": 30.3, "tfloat32": 60, "bfloat16": 121, "float16": 121, "int8": 242.5, "float8_e4m3fn": 242.5}
_3090 = {"float32": 35.6, "tfloat32": 35.6, "bfloat16": 71, "float16": 71, "int8": 284}
_4090 = {
    "float32": 82.6, "tfloat32": 82.6, "bfloat16": 165.2, "float16": 165.2, "int8": 660.6, "float8_e4m3fn": 330.3,
}  # fmt: skip
_5090 = {
    "float32": 104.8, "tfloat32": 104.8, "bfloat16": 209.5, "float16": 209.5, "int8": 838, "float8_e4m3fn": 419,
}  # fmt: skip
_H100_PCIE = {"float32": 51, "tfloat32": 378, "bfloat16": 756.5, "float16": 756.5, "int8": 1513, "float8_e4m3fn": 1513}
_H100_NVL = {
    "float32": 60, "tfloat32": 417.5, "bfloat16": 835.5, "float16": 835.5, "int8": 1670.5, "float8_e4m3fn": 1670.5,
}  # fmt: skip
_GEFORCE = "architecture white paper; 16- and 8-bit products summed in 32 bits"

# Words that must all be in the device's name, GB/s, rates, source. The first row that fits is taken.
_ROWS: tuple[tuple[str, str, float, dict[str, float], str], ...] = (
    ("T4", "T4", 320, {"float32": 8.1, "float16": 65, "int8": 130}, "NVIDIA T4 datasheet"),
    ("V100 PCIE", "V100 PCIe", 900, {"float32": 14, "float16": 112}, "NVIDIA V100 datasheet"),
    ("V100 SXM2", "V100 SXM2", 900, {"float32": 15.7, "float16": 125}, "NVIDIA V100 datasheet"),
    (
        "A10", "A10", 600, {"float32": 31.2, "tfloat32": 62.5, "bfloat16": 125, "float16": 125, "int8": 250},
        "NVIDIA A10 datasheet",
    ),
    ("A100 SXM4 80GB", "A100 SXM 80 GB", 2039, _A100, "NVIDIA A100 datasheet"),
    ("A100 PCIE 80GB", "A100 PCIe 80 GB", 1935, _A100, "NVIDIA A100 datasheet"),
    ("A100 40GB", "A100 40 GB", 1555, _A100, "NVIDIA A100 datasheet"),
    ("L4", "L4", 300, _L4, "NVIDIA L4 datasheet"),
    ("L40S", "L40S", 864, _L40S, "NVIDIA L40S datasheet"),
    ("RTX 3090", "GeForce RTX 3090", 936, _3090, f"NVIDIA GA102 {_GEFORCE}"),
    ("RTX 4090", "GeForce RTX 4090", 1008, _4090, f"NVIDIA Ada {_GEFORCE}"),
    ("RTX 5090", "GeForce RTX 5090", 1792, _5090, f"NVIDIA RTX Blackwell {_GEFORCE}"),
    ("H100 PCIE", "H100 PCIe", 2000, _H100_PCIE, "NVIDIA H100 PCIe datasheet"),
    ("H100 NVL", "H100 NVL", 3900, _H100_NVL, "NVIDIA H100 datasheet"),
    ("H100 80GB HBM3", "H100 SXM", 3350, _HOPPER, "NVIDIA H100 datasheet"),
    ("H200 NVL", "H200 NVL", 4800, _H100_NVL, "NVIDIA H200 datasheet"),
    ("H200", "H200 SXM", 4800, _HOPPER, "NVIDIA H200 datasheet"),
    (
        "B200", "B200", 8000, {"bfloat16": 2250, "float16": 2250, "int8": 4500, "float8_e4m3fn": 4500},
        "NVIDIA HGX B200 datasheet",
    ),
)  # fmt: skip

# A part or a relative of a listed GPU that shares its words.
_OTHERS = {"LAPTOP", "MOBILE", "MIG", "TI", "D", "SUPER", "VGPU"}


def datasheet_of(device_name: str) -> Datasheet | None:
    """device_name: as the driver calls the GPU. None for one that is not listed."""
    words = set(re.split(r"[\s_/-]+", device_name.upper()))
    if words & _OTHERS:
        return None
    for needed, name, gigabytes, rates, source in _ROWS:
        if words.issuperset(needed.split()):
            return Datasheet(name, gigabytes * 1e9, {kind: rate * 1e12 for kind, rate in rates.items()}, source)
    return None
