"""The bar for what integers may cost on a CPU: perplexities of the bundled model on a text it was not trained on."""

from __future__ import annotations

from pathlib import Path

import torch
from scripts.check_quality import Q4_0_GROUP, Readers, measured, q4_0


def test_integers_cost_no_more_than_the_bar(tmp_path: Path) -> None:
    """2048 tokens; records/2026-11-26-quality-cpu has the whole text, on which int4 loses less than 3 %."""
    readers = Readers("demo", tokens=2048, window=512, threads=None, cache=tmp_path)
    with torch.inference_mode():
        rows = measured(readers, ["int8", "int4", "Q4_0"], print)
    assert abs(rows["int8"]["loss_percent"]) < 0.5
    assert rows["int4"]["loss_percent"] < 0.9 * rows["Q4_0"]["loss_percent"]


def test_q4_0_is_llama_cpps() -> None:
    """Of a group whose largest value is 4: the scale is -0.5, and halves of it are rounded away from 7."""
    group = torch.zeros(1, Q4_0_GROUP)
    group[0, :6] = torch.tensor([4.0, -4.0, 0.24, -0.26, 1.0, 0.25])
    assert q4_0(group)[0, :6].tolist() == [4.0, -3.5, 0.0, -0.5, 1.0, 0.0]
    assert not q4_0(torch.zeros(2, Q4_0_GROUP)).any()
