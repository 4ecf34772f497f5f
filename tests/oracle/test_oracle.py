"""Every exact choice gives transformers' greedy tokens. More of it: `python -m tests.oracle.oracle --help`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracle.oracle import Case, check, demo, gpt2_shape, switches_for, tiny_model
from tests.switches import covering


@pytest.mark.parametrize("seed", range(3))
def test_random_tiny_models(seed: int, tmp_path: Path) -> None:
    reference, folder = tiny_model(seed, tmp_path / "model")
    case = Case(prompts=12, longest=40, new=14, seed=seed)
    assert check(reference, folder, case, switches_for(reference, case)) == []


@pytest.mark.parametrize("part", range(3))
def test_steps_that_could_be_captured(part: int, tmp_path: Path) -> None:
    """On a CPU they run as they would be captured, beside those with prompts in them, which are packed."""
    reference, folder = tiny_model(part, tmp_path / "model")
    case = Case(prompts=12, longest=40, new=14, seed=part)
    paged = [row for row in covering() if row["graphs"] == "eager" and row["kv_cache"] == "paged"]
    rows = [row | {"graphs": "graph", "determinism": "off"} for row in paged]
    assert check(reference, folder, case, switches_for(reference, case, rows[part::3])) == []


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
