"""Options that exclude each other are refused with a sentence, before anything is loaded."""

from __future__ import annotations

import pytest

from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"attention": "paged"}, "--attention paged is none"),
        ({"packing": "padded"}, "with --packing padded they do not"),
        ({"kv_cache": "none"}, "--graphs recorded needs a KV cache"),
        ({"determinism": "run"}, "with --graphs recorded chance decides"),
    ],
)
def test_recorded_steps_refuse_what_cannot_be_recorded(options: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Config.of(graphs="recorded", **options)
