"""What a client may ask of a generation."""

from __future__ import annotations

import pytest

from ridgeline.core.config import parse_bytes
from ridgeline.core.errors import BadRequest, ConfigError
from ridgeline.core.params import MAX_SEED, SamplingParams, derive_seed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("min_tokens", -1),
        ("min_tokens", 17),
        ("top_k", -1),
        ("top_k", 2**63),
        ("top_p", 0.0),
        ("top_p", float("nan")),
        ("temperature", float("inf")),
        ("temperature", -0.1),
        ("seed", -1),
        ("seed", 2**64),
        ("stop", ("",)),
        ("stop", tuple("abcdefghijklmnopq")),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadRequest, match=name) as caught:
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    assert caught.value.param == name


def test_derived_seeds_differ_and_repeat() -> None:
    seeds = [derive_seed(base, index) for base in (0, 1, MAX_SEED) for index in range(100)]
    assert len(set(seeds)) == 300
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
    assert seeds[0] == derive_seed(0, 0)


def test_a_size_beyond_all_memory_is_a_config_error() -> None:
    with pytest.raises(ConfigError):
        parse_bytes("9" * 400)
