"""What check_gpu_sanitize.sh runs under compute-sanitizer: every own kernel once, at small and uneven sizes.

PYTHONPATH=src TRITON_INTERPRET=1 python -m scripts.sanitized        # on a CPU, without the CUDA C++
"""

from __future__ import annotations

import torch
from torch import Tensor

from ridgeline.ops import float8, words
from ridgeline.ops.gemv import LayerNorm, fused_linear, layer
from ridgeline.ops.gemv_triton import Kernels
from ridgeline.ops.many import multiplied
from ridgeline.ops.many_triton import Tiles
from ridgeline.ops.paged import REFERENCE, triton_ops
from ridgeline.ops.paged_decode import Singles
from ridgeline.ops.pages import Pages

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def normal(*size: int) -> Tensor:
    return torch.randn(size).to(DEVICE, torch.float16)


def near(what: str, found: Tensor, expected: Tensor) -> None:
    error = float((found.float() - expected.float()).norm() / expected.float().norm())
    print(f"{what}: error norm {error:.1e}", flush=True)
    if not error < 2e-2:
        raise SystemExit(f"{what} is wrong")


def reading() -> None:
    """The CUDA C++ of the calibration."""
    from ridgeline.device.kernels_cuda import Kernels as Reading

    kernels = Reading(DEVICE)
    kernels.check(torch.randint(0, 1000, (4 * 1023,), dtype=torch.int32, device=DEVICE))
    kernels.read_shared(1)
    torch.cuda.synchronize()
    print("calibration kernels: read what they were given", flush=True)


def products() -> None:
    x, residual, bias = normal(3, 300), normal(3, 37), normal(37)
    norm = LayerNorm(normal(300), normal(300), 1e-5)
    for name, pack in {"plain": words.plain, **words.QUANTISE}.items():
        of = layer(pack(normal(37, 300) / 17), bias, norm, "gelu_new")
        near(f"few rows, {name}", Kernels(dependent=False).linear(x, of, residual), fused_linear(x, of, residual))
        if name != "plain":
            given = normal(21, 300), of.weight, bias, "gelu_new", normal(21, 37)
            for programs in (1, 64):
                near(f"tiles, {name}", Tiles(programs, True, 64).linear(*given), multiplied(*given))
            near(f"widened, {name}", Tiles(1, True, 64).widened(of.weight, x.dtype), of.weight.values())
    if DEVICE.type == "cuda" and torch.cuda.get_device_capability(DEVICE) >= (8, 9):
        from ridgeline.ops.float8_triton import quantised

        near("rows to 8-bit floats", quantised(x, norm)[0], float8.quantised(x, norm)[0])


def attention() -> None:
    q, k, v = (normal(2, 2, 32) for _ in range(3))
    rows = Singles(torch.arange(8, dtype=torch.int32, device=DEVICE).view(2, 4), torch.tensor([53, 7], device=DEVICE))
    made = []
    for ops in (REFERENCE, triton_ops()):
        pages, out = Pages.make(9, 2, 16, 32, torch.float16, DEVICE), torch.zeros_like(q)
        pages.values.copy_(torch.ones_like(pages.values))
        ops.decode(q, k, v, out, pages, rows, 0.2)
        made.append(out)
    near("decode over pages", made[1], made[0])


if __name__ == "__main__":
    torch.manual_seed(0)
    if DEVICE.type == "cuda":
        reading()
    products()
    attention()
