"""What the start log advises: only what is faster, with the bytes that the cost model counts."""

from __future__ import annotations

import pytest

from ridgeline.core.advice import on_a_cpu, on_a_gpu
from ridgeline.core.config import Config
from ridgeline.core.cost import Formats
from ridgeline.core.spec import GPT2_SHAPES

FLOAT32, BFLOAT16 = Formats(32, 32, 32, "float32"), Formats(16, 16, 16, "bfloat16")


def told(formats: Formats, *, compiles: bool = True, **options: object) -> str | None:
    return on_a_cpu(GPT2_SHAPES["gpt2"], formats, Config.of(**options), 8.0, compiles=compiles)


def test_float32_is_told_what_8_bits_and_a_smaller_cache_save() -> None:
    note = told(FLOAT32)
    assert note is not None
    assert "32 bits" in note
    assert "reads 495 MB" in note
    assert "--quantize int8 reads 124 MB" in note
    assert "--kv-dtype bfloat16 halves the 73,728 bytes" in note


def test_what_is_chosen_already_is_not_advised() -> None:
    note = told(BFLOAT16)
    assert note is not None
    assert "--kv-dtype" not in note
    quantised = Formats(8, 16, 16, "bfloat16")
    assert told(quantised, quantize="int8") is None
    assert told(FLOAT32, quantize="int8", kv_dtype="bfloat16") is None


@pytest.mark.parametrize("options", [{"compiles": False}, {"determinism": "batch"}])
def test_8_bits_are_advised_only_where_they_are_faster_and_may_change_tokens(options: dict[str, object]) -> None:
    assert told(BFLOAT16, **options) is None  # type: ignore[arg-type]


def test_a_gpu_is_told_what_a_record_shows() -> None:
    note = on_a_gpu(Config.of())
    assert note is not None
    assert "--batching gathered" in note
    assert on_a_gpu(Config.of(batching="gathered")) is None
    assert on_a_gpu(Config.of(graphs="eager")) is None
