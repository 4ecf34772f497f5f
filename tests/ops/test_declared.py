"""What own kernels say of their operands, as somebody would add them up by hand, and that the tally hears it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from ridgeline.ops import words
from ridgeline.ops.declared import bytes_of, declare, listening
from ridgeline.ops.gemv import layer
from ridgeline.ops.paged_decode import Singles
from ridgeline.ops.paged_prefill import Spans
from ridgeline.ops.pages import Pages
from ridgeline.runner.regions import HOST
from ridgeline.runner.tally import Tally

pytest.importorskip("triton", reason="Triton is not installed: it comes for Linux on x86-64 alone")

from ridgeline.ops.gemv_triton import Kernels
from ridgeline.ops.many_triton import Tiles
from ridgeline.ops.paged import triton_ops

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
F16, F32, I64 = 2, 4, 8


@contextmanager
def heard() -> Iterator[list[int]]:
    told: list[int] = []
    with listening(told.append):
        yield told


def randn(*size: int) -> torch.Tensor:
    return torch.randn(size).to(DEVICE, torch.float16)


def test_nobody_is_asked_where_nobody_listens() -> None:
    def never() -> int:
        raise AssertionError

    declare(never)
    with heard():
        pass
    declare(never)


def test_a_tally_counts_a_declared_launch_at_its_place_and_nothing_of_the_answer() -> None:
    tally = Tally()
    with tally.counting():
        tally.enter(3)
        declare(lambda: int(torch.ones(8).sum()))
        tally.leave()
        declare(lambda: 5)
    assert (tally.calls[3], tally.operand_bytes[3]) == (1, 8)
    assert (tally.calls[HOST], tally.operand_bytes[HOST]) == (1, 5)


def test_products_read_the_matrix_as_it_is_stored() -> None:
    x, residual, bias = randn(3, 256), randn(3, 64), randn(64)
    plain, packed = layer(words.plain(randn(64, 256)), bias), words.int8(randn(64, 256))
    with heard() as told:
        Kernels(dependent=False).linear(x, plain, residual)
        Tiles(1, deep=True, most=64).linear(x, packed, bias, None, residual)
        Tiles(1, deep=True, most=64).widened(packed, torch.float16)
    around = F16 * (3 * 256 + 3 * 64 + 3 * 64)
    assert told == [
        around + F16 * 64 * 256 + F32 * 64,
        around + 64 * 256 + F32 * 64 + F16 * 64,
        64 * 256 + F32 * 64 + F16 * 64 * 256,
    ]


@pytest.mark.parametrize(("dtype", "a_token"), [(torch.float16, 2 * 2 * 32 * 2), (torch.int8, 2 * 2 * (32 + 2))])
def test_attention_reads_what_is_attended_and_not_the_whole_cache(dtype: torch.dtype, a_token: int) -> None:
    ops, pages = triton_ops(), Pages.make(9, 2, 16, 32, dtype, DEVICE)
    table = torch.arange(8, dtype=torch.int32, device=DEVICE).view(2, 4)
    contexts = torch.tensor([20, 0], device=DEVICE)
    q, k, v, out = (randn(2, 2, 32) for _ in range(4))
    with heard() as told:
        ops.decode(q, k, v, out, pages, Singles(table, contexts), 1.0)
        ops.decode(q, k, v, out, pages, Singles(table, contexts), 1.0, 7)
        ops.append(pages, k, v, torch.tensor([1, 2], device=DEVICE))
    a_batch = 2 * 2 * 32 * F16
    assert told == [
        4 * a_batch + (20 + 1) * a_token, 4 * a_batch + (7 + 1) * a_token, 2 * a_batch + 2 * I64 + 2 * a_token,
    ]  # fmt: skip
    facts = torch.tensor([[0, 2, 18, 20]], device=DEVICE)
    spans = Spans(facts, torch.zeros(1, 2, dtype=torch.int64, device=DEVICE), table[:1])
    with heard() as told:
        ops.prefill(q, out, pages, spans, 1.0)
    assert told == [2 * a_batch + 20 * a_token]


def test_values_count_wherever_they_lie() -> None:
    rows: Callable[[int], torch.Tensor] = lambda n: torch.empty(n, 8)[:, :3]  # noqa: E731
    assert bytes_of(rows(5), None, rows(2)) == F32 * 3 * 7
