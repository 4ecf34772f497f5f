"""Floors of a step on a machine of round numbers: what binds, and which level of memory counts."""

from __future__ import annotations

import pytest

from ridgeline.core.ceilings import Level
from ridgeline.core.cost import Formats, OpCost, StepShape, step_costs, total
from ridgeline.core.errors import ConfigError
from ridgeline.core.floor import fits_in_cache, floors
from ridgeline.core.spec import GPT2_SHAPES, ModelSpec
from tests.core.made_up import ceilings, rate

GPT2 = GPT2_SHAPES["gpt2"]
HALF = Formats(16, 16, 16, "bfloat16")
TINY = ModelSpec(layers=1, d_model=32, heads=2, d_inner=128, vocab=64, max_positions=16)


def op(streamed: int = 0, local: int = 0, flops: int = 0, launches: int = 1) -> OpCost:
    return OpCost("mlp", "mlp_in", 0, streamed, local, flops, launches)


def test_decode_at_batch_one_waits_for_memory_and_a_long_prompt_for_arithmetic() -> None:
    linear = ("qkv", "attn_out", "mlp_in", "mlp_out")
    decode = floors(step_costs(GPT2, StepShape.decode(1, 64), HALF), ceilings(), "bfloat16")
    assert {floor.binds for floor in decode if floor.cost.name in (*linear, "head")} == {"memory"}
    prefill = floors(step_costs(GPT2, StepShape.prefill(1024), HALF), ceilings(), "bfloat16")
    assert {floor.binds for floor in prefill if floor.cost.name in linear} == {"matrix bfloat16"}


def test_the_floor_of_a_decode_step_is_mostly_its_bytes() -> None:
    costs = step_costs(GPT2, StepShape.decode(1, 64), HALF)
    made = floors(costs, ceilings(), "bfloat16", in_graph=True)
    assert [floor.cost for floor in made] == list(costs)
    streaming_ns = total(costs).streamed_bytes / 10
    assert streaming_ns < sum(floor.ns for floor in made) < 1.05 * streaming_ns


def test_reading_and_arithmetic_overlap_and_launches_do_not() -> None:
    (floor,) = floors([op(streamed=60_000_000, flops=4_000_000_000)], ceilings(), "bfloat16")
    assert (floor.memory_ns, floor.compute_ns, floor.launch_ns) == pytest.approx((6e6, 4e6, 1000))
    assert floor.ns == pytest.approx(6e6 + 1000)
    assert floor.binds == "memory"
    (slower,) = floors([op(streamed=60_000_000, flops=4_000_000_000)], ceilings(), "float32")
    assert slower.binds == "matrix float32"


def test_launches_bind_what_is_small_and_cost_less_in_a_graph() -> None:
    small = [op(local=64, flops=64, launches=3)]
    (plain,), (graph,) = (floors(small, ceilings(), "bfloat16", in_graph=flag) for flag in (False, True))
    assert (plain.binds, plain.launch_ns, graph.launch_ns) == ("launch", 3000, 300)
    (without,) = floors(small, ceilings(graph_launch_ns=None), "bfloat16", in_graph=True)
    assert without.launch_ns == 3000


def test_streams_count_together_and_results_alone() -> None:
    """Two halves of what L3 holds stay in it; two that are more together come from memory, each of them."""
    fit, spill = ([op(streamed=size)] * 2 for size in (15_000_000, 16_000_000))
    assert {floor.binds for floor in floors(fit, ceilings(), "bfloat16")} == {"L3"}
    assert {floor.binds for floor in floors(spill, ceilings(), "bfloat16")} == {"memory"}
    assert (fits_in_cache(fit, ceilings()), fits_in_cache(spill, ceilings())) == (True, False)
    local = floors([op(local=90_000)] * 1000, ceilings(launch_ns=rate(1.0)), "bfloat16")
    assert {floor.binds for floor in local} == {"L1"}


def test_a_small_model_never_leaves_the_cache_unless_none_was_measured() -> None:
    costs = step_costs(TINY, StepShape.decode(1, 8), HALF)
    assert fits_in_cache(costs, ceilings())
    assert not fits_in_cache(costs, ceilings(levels=(Level("memory", None, rate(1e10)),)))


def test_a_format_that_was_not_measured_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="no matrix rate for float16"):
        floors([op(flops=1)], ceilings(), "float16")
