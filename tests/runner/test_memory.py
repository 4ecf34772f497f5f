"""The memory plan: integers in, integers out, and numbers in every refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ridgeline.attending import Attending
from ridgeline.attention.paged import Paged
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.device.cpu import CpuDevice
from ridgeline.runner.graphs import count_of
from ridgeline.runner.inputs import Padded, Ragged
from ridgeline.runner.memory import MemoryPlan, graph_bytes, plan_memory, workspace_bytes
from ridgeline.running import Running
from ridgeline.sizing import engine_limits, useful_sequences

GIB, SPEC = 1 << 30, GPT2_SHAPES["gpt2"]


def plan(**changes: Any) -> MemoryPlan:
    given: dict[str, Any] = {
        "free_bytes": 8 * GIB, "weight_bytes": 2 * SPEC.parameters, "workspace": GIB, "graphs": 0,
        "positions": 2048, "slots": 256, "useful_sequences": 256, "max_model_len": 1024,
        "block_size": 16, "share_percent": 50,
    }  # fmt: skip
    given |= changes
    return plan_memory(block_bytes=SPEC.kv_bytes_per_token(2) * given["block_size"], **given)


def test_a_share_of_what_is_left_becomes_blocks() -> None:
    found = plan()
    assert found.weights_bytes == 2 * 124_439_808
    assert found.block_bytes == 16 * 36_864
    budget = (8 * GIB - found.weights_bytes - GIB) // 2
    assert found.num_blocks == budget // found.block_bytes - 1
    assert found.kv_bytes == (found.num_blocks + 1) * found.block_bytes <= budget
    assert found.sequences(1024) == found.num_blocks // 64
    assert found.sequences(17) == found.num_blocks // 2
    assert "249.0 MiB" not in found.describe()
    for words in ("8.00 GiB free", "weights 237.4 MiB", "workspace 1.00 GiB", f"{found.num_blocks} blocks of 16"):
        assert words in found.describe()


def test_never_more_blocks_than_are_of_use() -> None:
    assert plan(useful_sequences=3).num_blocks == 3 * 64
    assert plan(useful_sequences=3, max_model_len=1000, block_size=100).num_blocks == 30


def test_kv_memory_is_what_the_operator_says() -> None:
    found = plan(kv_memory=100 << 20)
    assert found.num_blocks == (100 << 20) // found.block_bytes - 1
    exact = 65 * found.block_bytes
    assert plan(kv_memory=exact).num_blocks == 64
    with pytest.raises(
        ConfigError, match=r"one sequence of --max-model-len 1024 needs .* Lower --max-model-len to 1008"
    ):
        plan(kv_memory=exact - 1)
    with pytest.raises(ConfigError, match=r"--kv-memory 7.00 GiB: only 6.77 GiB are left"):
        plan(kv_memory=7 * GIB)


def test_what_cannot_work_is_refused_with_numbers() -> None:
    with pytest.raises(ConfigError, match=r"does not fit: weights take 237.4 MiB .* of 200.0 MiB free"):
        plan(free_bytes=200 << 20)
    with pytest.raises(ConfigError, match=r"too small: .* 36.6 MiB, .* less .*Lower --max-model-len to \d+ or less"):
        plan(kv_memory=1 << 22)
    with pytest.raises(ConfigError, match=r"too small: .* 36.6 MiB, .* less .*\)\. Raise --kv-memory"):
        plan(free_bytes=GIB + (238 << 20))


def test_a_workspace_that_does_not_fit_names_what_made_it_large() -> None:
    with pytest.raises(
        ConfigError, match=r"workspace does not fit: .* 262144 .* of 256 requests; lower --max-num-seqs"
    ):
        plan(workspace=8 * GIB, positions=1 << 18)


def test_what_the_cache_is_planned_for() -> None:
    """Those who run, the blocks of those who ran, and without a cache the scratch of each launch."""
    for options, given, expected in (
        ({}, False, 16),
        ({"prefix_cache": False}, False, 8),
        ({"prefix_cache": False}, True, 8),
        ({"kv_cache": "none"}, False, 8),
        ({"kv_cache": "none", "launches_in_flight": 2}, True, 16),
    ):
        assert useful_sequences(Config.of(**options), 8, given=given) == expected
    assert useful_sequences(Config.of(), 8, given=True) > 1 << 40, "what the operator says is taken"


def test_a_prompt_that_is_computed_whole_fits_beside_those_who_decode() -> None:
    config = Config.of(chunked_prefill=False, max_num_seqs=100)
    assert engine_limits(config, SPEC, step_tokens=512).budget == 1024 + 100
    assert engine_limits(Config.of(max_num_seqs=100), SPEC, step_tokens=512).budget == 512


def test_workspace_grows_with_the_step() -> None:
    small, large = (workspace_bytes(SPEC, tokens, 8, 1024, 4) for tokens in (512, 2048))
    assert 64 << 20 < small < large < GIB


def test_padded_rows_are_planned_for() -> None:
    """One long chunk makes every seat as long."""
    assert Ragged.most_positions(slots=2, budget=2048, max_len=512) == 1024
    assert Padded.most_positions(slots=2, budget=2048, max_len=512) == 1024
    assert Ragged.most_positions(slots=256, budget=2048, max_len=1024) == 2048
    assert Padded.most_positions(slots=256, budget=2048, max_len=1024) == 256 * 1024
    assert Padded.most_positions(slots=8, budget=512, max_len=1024) == 8 * 512


def test_captured_steps_grow_with_the_rows_and_are_small_beside_a_step_with_prompts() -> None:
    few, many = (graph_bytes(SPEC, rows, 512, 1024, 2, 0) for rows in (8, 256))
    assert few < many < graph_bytes(SPEC, 256, 2048, 1024, 2, 0) < workspace_bytes(SPEC, 2048, 256, 1024, 2)


@pytest.mark.parametrize(
    ("shape", "count", "measured_mib"),
    [("gpt2", 93, 122), ("gpt2", 57, 92), ("gpt2-medium", 93, 148), ("gpt2-xl", 93, 202)],
)
def test_what_the_driver_was_seen_to_take_for_graphs_is_planned_for(shape: str, count: int, measured_mib: int) -> None:
    """records/2026-11-26-starts-h100/memory.json."""
    spec = GPT2_SHAPES[shape]
    none = graph_bytes(spec, 256, 2048, 1024, 2, 0) - graph_bytes(spec, 256, 2048, 1024, 2, -1)
    first = (72 << 20) + count * none
    assert measured_mib <= first / 2**20 < 1.5 * measured_mib


class Capturing(CpuDevice):
    captures = True

    def free_memory_bytes(self) -> int:
        return 4 * GIB


def test_a_device_that_captures_reserves_room_for_graphs_and_says_so() -> None:
    device, config = Capturing(torch.float32), Config.of(max_num_seqs=32, attention="paged")
    limits = engine_limits(config, SPEC, 2048)
    attending = Attending(Paged(), torch.float32, 64)
    running = Running(config, SPEC, device, limits, attending, "none", None)
    found, eager = running.memory(), replace(running, config=Config.of(graphs="eager", max_num_seqs=32)).memory()
    assert count_of(32, limits.budget) == 4 * (7 + 9 * 2)
    assert found.graphs_bytes == graph_bytes(SPEC, 32, 2048, 1024, 4, count_of(32, limits.budget))
    assert found.graphs_bytes > 100 << 20
    assert (
        f"workspace {found.workspace_bytes / (1 << 20):.1f} MiB, graphs {found.graphs_bytes / (1 << 20):.1f} MiB, KV"
        in (found.describe())
    )
    assert eager.graphs_bytes == 0
    assert "graphs" not in eager.describe()
    assert eager.workspace_bytes == found.workspace_bytes
    assert eager.num_blocks > found.num_blocks


def test_a_memory_that_graphs_fill_names_them() -> None:
    with pytest.raises(ConfigError, match=r"workspace 1.00 GiB with captured steps 7.00 GiB of .* take --graphs eager"):
        plan(graphs=7 * GIB)
