"""Costs of a step from shapes: against numbers worked out by hand, and against what a model holds."""

from __future__ import annotations

import dataclasses

import pytest

from ridgeline.core.cost import REGIONS, Formats, OpCost, Row, StepShape, resident_bytes, step_costs, total
from ridgeline.core.spec import GPT2_SHAPES, ModelSpec

GPT2 = GPT2_SHAPES["gpt2"]
HALF = Formats(weight_bits=16, kv_bits=16, activation_bits=16, compute="bfloat16")
SMALL = ModelSpec(layers=2, d_model=8, heads=2, d_inner=32, vocab=50, max_positions=16)


def named(costs: tuple[OpCost, ...], name: str) -> list[OpCost]:
    return [cost for cost in costs if cost.name == name]


def test_what_a_decode_step_of_gpt2_streams_at_batch_one() -> None:
    """124,439,808 parameters, less 1024 positions of 768, but two rows of 768 gathered: 123,654,912 values of 2 bytes.
    Keys and values: 12 layers, 2 * 768 values, 100 positions read and one written, 2 bytes."""
    costs = step_costs(GPT2, StepShape.decode(1, 100), HALF)
    assert total(costs).streamed_bytes == 247_309_824 + 3_723_264


def test_the_arithmetic_of_a_decode_step() -> None:
    """Two operations a weight and sequence, head included, and four a key's value; the rest is in the hundredths."""
    for batch in (1, 8):
        costs = step_costs(GPT2, StepShape.decode(batch, 100), HALF)
        products = 2 * (12 * 12 * 768**2 + 50257 * 768) * batch + 12 * 4 * 768 * 100 * batch
        assert total(costs).flops == pytest.approx(products, rel=0.01)
        assert total(costs).flops > products


def test_weights_are_read_once_whatever_the_batch() -> None:
    one, many = (step_costs(GPT2, StepShape.decode(batch, 64), HALF) for batch in (1, 32))
    for region in ("qkv", "projection", "mlp", "head"):
        assert total(one, region).streamed_bytes == total(many, region).streamed_bytes
    assert total(many, "attention").streamed_bytes == 32 * total(one, "attention").streamed_bytes


def test_a_tied_head_is_read_once_and_resident_once() -> None:
    untied = dataclasses.replace(GPT2, tied_head=False)
    table = 50257 * 768 * 2
    shape = StepShape.decode(1, 10)
    assert total(step_costs(GPT2, shape, HALF)) == total(step_costs(untied, shape, HALF))
    assert [cost.streamed_bytes for cost in named(step_costs(GPT2, shape, HALF), "head")] == [table]
    assert resident_bytes(untied, HALF.weight_bits) - resident_bytes(GPT2, HALF.weight_bits) == table


@pytest.mark.parametrize("spec", [GPT2, SMALL, dataclasses.replace(SMALL, tied_head=False)])
def test_what_is_read_adds_up_to_what_is_resident_less_the_tables(spec: ModelSpec) -> None:
    costs = step_costs(spec, StepShape.decode(1, 10), HALF)
    kv, gathered = total(costs, "attention").streamed_bytes, total(costs, "embedding").streamed_bytes
    tables = spec.max_positions * spec.d_model + (0 if spec.tied_head else spec.vocab * spec.d_model)
    assert total(costs).streamed_bytes - kv - gathered == resident_bytes(spec, HALF.weight_bits) - 2 * tables
    assert resident_bytes(spec, HALF.weight_bits) == 2 * spec.parameters
    assert total(costs).streamed_bytes - kv < resident_bytes(spec, HALF.weight_bits)


def test_pairs_of_a_prompt_and_of_its_last_chunk() -> None:
    assert Row(5, 5).pairs == 1 + 2 + 3 + 4 + 5
    assert Row(3, 8).pairs == 6 + 7 + 8
    assert Row(1, 8).pairs == 8


def test_a_prompt_in_chunks_costs_the_same_arithmetic_in_attention() -> None:
    whole = step_costs(SMALL, StepShape.prefill(12), HALF)
    parts = [step_costs(SMALL, StepShape((Row(4, end),), wanted=0), HALF) for end in (4, 8, 12)]
    assert total(whole, "attention").flops == sum(total(part, "attention").flops for part in parts)
    assert all(total(part, "head").flops == total(part, "sampling").flops == 0 for part in parts)


def test_padding_costs_arithmetic_and_no_weights() -> None:
    plain = step_costs(SMALL, StepShape((Row(6, 6), Row(2, 2)), wanted=2), HALF)
    padded = step_costs(SMALL, StepShape((Row(6, 6), Row(2, 2)), wanted=2, padding=4), HALF)
    for region in ("qkv", "projection", "mlp"):
        assert total(padded, region).streamed_bytes == total(plain, region).streamed_bytes
        assert total(padded, region).flops == 12 / 8 * total(plain, region).flops
    assert total(padded, "attention").flops > total(plain, "attention").flops
    assert total(padded, "head") == total(plain, "head")


def test_narrow_weights_and_caches_are_read_in_their_own_width() -> None:
    shape = StepShape.decode(4, 12)
    wide, narrow = (step_costs(SMALL, shape, Formats(bits, bits, 32, "float32")) for bits in (32, 8))
    assert total(wide, "attention").streamed_bytes == 4 * total(narrow, "attention").streamed_bytes
    assert total(wide).local_bytes == total(narrow).local_bytes
    assert total(wide).flops == total(narrow).flops


def test_every_operation_has_a_place_and_regions_add_up() -> None:
    costs = step_costs(SMALL, StepShape.decode(3, 5), HALF)
    assert {cost.region for cost in costs} == set(REGIONS) - {"host"}
    assert {cost.layer for cost in costs} == {None, 0, 1}
    assert total(costs).launches == len(costs) == 1 + 2 * 7 + 3
    assert sum(total(costs, region).bytes for region in REGIONS) == total(costs).bytes
    assert total(costs, "host").intensity == 0.0
