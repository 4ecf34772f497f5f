"""The rig: every sequence is in every step, at the context that was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline.build import EngineOrder
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.lab.rig import Workbench
from tests.tiny_gpt2 import write_tiny_gpt2


def open_bench(folder: Path, **options: object) -> Workbench:
    options |= {"model": str(folder), "dtype": "float32", "device": "cpu"}
    return Workbench.open(EngineOrder(Config.from_mapping(options), "tiny", folder), lambda *_: None)


@pytest.mark.parametrize(("batch", "context", "steps"), [(1, 16, 3), (3, 24, 11), (32, 33, 4)])
def test_every_step_has_every_sequence(batch: int, context: int, steps: int, tmp_path: Path) -> None:
    rig = open_bench(write_tiny_gpt2(tmp_path / "tiny")).rig(batch, context, steps)
    for _ in range(2):
        with rig.decoding() as one:
            assert rig.last.positions == batch * (context - steps // 2)
            for _ in range(steps):
                one()
                assert (rig.last.rows, rig.last.tokens, rig.last.padding) == (batch, batch, 0)
        assert rig.engine.counters().kv_blocks == 0


def test_prompts_are_computed_in_one_step(tmp_path: Path) -> None:
    rig = open_bench(write_tiny_gpt2(tmp_path / "tiny")).rig(2, 40, 1)
    for _ in range(2):
        run = rig.prompts(40, 2)
        assert rig.engine.counters().running == 0
        run()
        assert (rig.last.rows, rig.last.positions) == (2, 80)
    assert rig.prefill(40) > 0


def test_a_batch_that_memory_cannot_hold_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "tiny")
    with pytest.raises(ConfigError, match="a batch of 64 at context 100 has no room"):
        open_bench(folder, kv_memory="1MiB").rig(64, 100, 8)
