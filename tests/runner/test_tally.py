"""Tally: operations and operand bytes as somebody would add them up by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.runner.regions import PLACES, instrument
from ridgeline.runner.tally import Tally
from tests.tensors import TINY, Driver, lively, make_runner

F32, F64, I64 = 4, 8, 8


def counted(work: Callable[[], object]) -> tuple[int, int]:
    tally = Tally()
    with torch.inference_mode(), tally.counting():
        work()
    return sum(tally.calls), sum(tally.operand_bytes)


X, W, BIAS = torch.ones(3, 8), torch.ones(16, 8), torch.ones(16)
TABLE, ROWS = torch.zeros(1000, 8), torch.tensor([1, 5])
OUT = torch.zeros(2, 8)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda: functional.linear(X, W, BIAS), (1, F32 * (3 * 8 + 16 * 8 + 16 + 3 * 16))),
        (lambda: torch.mm(W, X.t()), (1, F32 * (16 * 8 + 8 * 3 + 16 * 3))),
        (lambda: X.view(-1, 2, 4).unbind(1)[0].transpose(0, 1)[None], (0, 0)),
        (lambda: X.reshape(8, 3), (0, 0)),
        (lambda: X.t().reshape(-1), (1, F32 * 2 * 24)),
        (lambda: torch.empty_like(X), (0, 0)),
        (lambda: X.to(torch.float32), (0, 0)),
        (lambda: X.to(torch.float64), (1, 24 * (F32 + F64))),
        (lambda: X.clone().add_(X), (2, F32 * 24 * (2 + 3))),
        (lambda: torch.add(X, X, out=torch.empty(X.shape)), (1, F32 * 24 * 3)),
        (lambda: torch.empty(3, 8).copy_(X), (1, F32 * 24 * 2)),
        (lambda: X + BIAS[:1].expand(3, 8), (1, F32 * (24 + 1 + 24))),
        # Of tables only the rows that are looked up or written.
        (lambda: functional.embedding(ROWS, TABLE), (1, 2 * I64 + F32 * 2 * 16)),
        (lambda: TABLE[ROWS], (1, 2 * I64 + F32 * 2 * 16)),
        (lambda: torch.index_select(TABLE, 0, ROWS, out=OUT), (1, 2 * I64 + F32 * 2 * 16)),
        (lambda: TABLE.index_copy_(0, ROWS, OUT), (1, 2 * I64 + F32 * 2 * 16)),
        (lambda: TABLE.index_put_((ROWS,), OUT), (1, 2 * I64 + F32 * 2 * 16)),
    ],
)
def test_operands_are_read_and_written_once(work: Callable[[], Tensor], expected: tuple[int, int]) -> None:
    assert counted(work) == expected


def test_a_step_is_counted_by_place_with_the_same_tokens() -> None:
    runner, tally = make_runner(lively(TINY)), Tally()
    driver, other = Driver(runner), Driver(make_runner(lively(TINY)))
    for each in (driver, other):
        each.join(0, [1, 2, 3, 4, 5], limit=9)
    with instrument(runner, tally), tally.counting():
        made = driver.step({0: 5})
    assert made.tokens.tolist() == other.step({0: 5}).tokens.tolist()
    d, tokens = TINY.d_model, 5
    by_place = {place: at for at, place in enumerate(PLACES)}
    norm = by_place["norm_1"]
    # Layer norm also writes the mean and the deviation of every row.
    assert tally.calls[norm] == TINY.layers
    assert tally.operand_bytes[norm] == TINY.layers * F32 * (2 * tokens * d + 2 * d + 2 * tokens)
    weights = F32 * TINY.layers * d * TINY.d_inner
    assert tally.operand_bytes[by_place["mlp_in"]] >= weights + F32 * TINY.layers * tokens * (d + TINY.d_inner)
    assert all(calls > 0 for calls, place in zip(tally.calls, PLACES, strict=True) if place != "attention_plan")
