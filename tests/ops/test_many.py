"""Which products for many rows a GPU gets for packed weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ridgeline.ops.many import TILED_ROWS, TILED_ROWS_OLD, choose, many_rows


class Made:
    def __init__(self, deep: bool, most: int) -> None:
        self.deep, self.most = deep, most


def works(_kernels: Any) -> None: ...


def breaks(_kernels: Any) -> None:
    raise RuntimeError("out of resources: shared memory")


@pytest.mark.parametrize(("capability", "deep"), [((8, 0), False), ((8, 9), False), ((9, 0), True), ((12, 0), True)])
def test_tiles_are_as_deep_as_the_shared_memory(capability: tuple[int, int], deep: bool) -> None:
    made: Any = choose(capability, torch.bfloat16, Made, works).kernels  # type: ignore[arg-type]
    assert made.deep is deep
    assert made.most == (TILED_ROWS if deep else TILED_ROWS_OLD)


@pytest.mark.parametrize(
    ("capability", "dtype", "reason"),
    [((7, 0), torch.float16, "this is compute capability 7.0"), ((9, 0), torch.float32, "16-bit activations")],
)
def test_what_cannot_be_has_a_reason(capability: tuple[int, int], dtype: torch.dtype, reason: str) -> None:
    chosen = choose(capability, dtype, Made, works)  # type: ignore[arg-type]
    assert chosen.kernels is None
    assert reason in chosen.note


def test_what_fails_on_the_card_is_left_out() -> None:
    chosen = choose((9, 0), torch.bfloat16, Made, breaks)  # type: ignore[arg-type]
    assert chosen.kernels is None
    assert "out of resources" in chosen.note


def test_there_are_none_on_a_cpu() -> None:
    assert many_rows(torch.device("cpu"), torch.bfloat16, "int8").kernels is None
