"""Which kernels for few rows a GPU gets, and weights in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ridgeline.ops import words
from ridgeline.ops.gemv import choose, few_rows
from ridgeline.ops.packed import Packed
from ridgeline.ops.words import Words


class Trial:
    """Kernels that work only without dependent launch, or only with, or never."""

    def __init__(self, *works: bool) -> None:
        self._works, self.made = works, list[bool]()

    def make(self, dependent: bool) -> Any:
        self.made.append(dependent)
        return dependent

    def try_out(self, kernels: Any) -> None:
        if kernels not in self._works:
            raise RuntimeError("no such instruction")


@pytest.mark.parametrize("capability", [(9, 0), (10, 0), (12, 0)])
def test_new_gpus_launch_dependent_kernels(capability: tuple[int, int]) -> None:
    trial = Trial(True, False)
    chosen = choose(capability, True, trial.make, trial.try_out)
    assert trial.made == [True]
    assert "dependent launch" in chosen.note


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6), (8, 9)])
def test_older_gpus_launch_plain_ones_and_say_so(capability: tuple[int, int]) -> None:
    trial = Trial(True, False)
    chosen = choose(capability, True, trial.make, trial.try_out)
    assert trial.made == [False]
    assert f"compute capability {capability[0]}.{capability[1]}" in chosen.note


def test_a_triton_without_dependent_launch_does_without() -> None:
    trial = Trial(True, False)
    assert "does not know it" in choose((9, 0), False, trial.make, trial.try_out).note
    assert trial.made == [False]


def test_what_fails_is_replaced_once_with_the_reason() -> None:
    trial = Trial(False)
    chosen = choose((9, 0), True, trial.make, trial.try_out)
    assert trial.made == [True, False]
    assert "no such instruction" in chosen.note
    trial = Trial()
    chosen = choose((9, 0), True, trial.make, trial.try_out)
    assert (chosen.kernels, trial.made) == (None, [True, False])


def test_the_oldest_gpus_and_cpus_have_none() -> None:
    trial = Trial(True, False)
    assert choose((7, 0), True, trial.make, trial.try_out).kernels is None
    assert not trial.made
    assert few_rows(torch.device("cpu"), torch.float32).kernels is None


@pytest.mark.parametrize(("pack", "error"), [(words.int8, 0.01), (words.int4, 0.09), (words.float8, 0.04)])
@pytest.mark.parametrize("shape", [(5, 256), (3, 300), (1, 1)])
def test_words_hold_what_was_packed(
    pack: Callable[[torch.Tensor], Words], error: float, shape: tuple[int, int]
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weight[0] = 0.0
    held = pack(weight)
    found = held.values()
    assert found.shape == shape
    assert torch.equal(found[0], weight[0])
    assert float((found - weight).norm()) <= error * float(weight.norm())
    assert torch.equal(pack(found).values(), found) or pack is not words.int8


@pytest.mark.parametrize("shape", [(5, 256), (40, 300), (17, 1600), (1, 1)])
def test_four_bits_are_those_of_a_cpu(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same codes, multipliers and scales, in the order of a GPU, in however many pieces they were rounded."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2)) * 0.02
    weight[0] = 0.0
    weight[-1, ::7] *= 30.0
    monkeypatch.setattr(words, "_PIECE", 4 * shape[1])
    held = words.int4(weight)
    torch.testing.assert_close(held.values(), Packed.of(weight, 4).values(), atol=1e-7, rtol=1e-5)
    assert torch.equal(held.cut(2).values(), held.values()[:2])
