"""Values that make no sense are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ridgeline.bench.options import ClientOptions
from ridgeline.bench.stories import PROMPTS, varied
from ridgeline.core.errors import ConfigError


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"mode": "benchmrk"}, "did you mean 'benchmark'"),
        ({"url": "localhost:8000"}, "--url"),
        ({"url": "http://me:secret@localhost"}, "OPENAI_API_KEY"),
        ({"num_requests": 0}, "--num-requests"),
        ({"delay_ms": -1}, "--delay-ms"),
        ({"delay_ms": float("nan")}, "--delay-ms"),
        ({"max_tokens": 0}, "--max-tokens"),
        ({"prompt": ""}, "--prompt"),
        ({"levels": (1, 0)}, "levels"),
        ({"json_path": Path("/no such folder/run.json")}, "--json"),
    ],
)
def test_a_wrong_value_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ClientOptions(**wrong)


def test_a_given_prompt_replaces_the_built_in_ones() -> None:
    assert {shape.prompt for shape in varied(5, 8, seed=1, prompt="Hello")} == {"Hello"}
    assert {shape.max_tokens for shape in varied(5, 1, seed=1)} == {1}


def test_built_in_prompts_differ_in_length() -> None:
    assert len({len(prompt) for prompt in PROMPTS}) == len(PROMPTS)
