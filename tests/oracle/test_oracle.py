"""Every exact choice gives transformers' greedy tokens. More of it: `python -m tests.oracle.oracle --help`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle.oracle import Case, check, demo, gpt2_shape, switches_for, tiny_model


@pytest.mark.parametrize("seed", range(3))
def test_random_tiny_models(seed: int, tmp_path: Path) -> None:
    reference, folder = tiny_model(seed, tmp_path / "model")
    case = Case(prompts=12, longest=40, new=14, seed=seed)
    assert check(reference, folder, case, switches_for(reference, case)) == []


def test_demo() -> None:
    reference, folder = demo()
    case = Case(prompts=8, longest=60, new=12, seed=0)
    assert check(reference, folder, case, switches_for(reference, case)[::7]) == []


@pytest.mark.slow
def test_the_shape_of_gpt2(tmp_path: Path) -> None:
    reference, folder = gpt2_shape(0, tmp_path / "model")
    case = Case(prompts=8, longest=24, new=8, seed=0)
    which = [s for s in switches_for(reference, case) if "=prefill-first, packing=ragged, kv_cache=paged" in s.name]
    assert [s.preempts for s in which] == [False, True]
    assert check(reference, folder, case, which) == []
