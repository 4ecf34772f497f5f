"""What a client may ask of a generation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ridgeline.core.config import parse_bytes
from ridgeline.core.errors import BadRequest, ConfigError
from ridgeline.core.params import MAX_SEED, SamplingParams, derive_seed
from ridgeline.core.types import MAX_LOGIT_BIAS, MAX_LOGPROBS, MAX_STOP_IDS, Sampling


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
        ("min_p", 1.1),
        ("min_p", float("nan")),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
        ("presence_penalty", -2.1),
        ("frequency_penalty", 2.1),
        ("logit_bias", ((5, 101.0),)),
        ("logit_bias", ((5, float("nan")),)),
        ("logit_bias", ((-1, 1.0),)),
        ("logit_bias", ((5, 1.0), (5, 2.0))),
        ("logit_bias", tuple((i, 1.0) for i in range(MAX_LOGIT_BIAS + 1))),
        ("stop_token_ids", (-1,)),
        ("stop_token_ids", tuple(range(MAX_STOP_IDS + 1))),
        ("logprobs", MAX_LOGPROBS + 1),
        ("prompt_logprobs", -1),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadRequest, match=name) as caught:
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    assert caught.value.param == name


@pytest.mark.parametrize("name", ["stop_token_ids", "logit_bias"])
def test_ids_that_the_model_does_not_have_are_refused_by_name(name: str) -> None:
    params = SamplingParams(**{name: {"stop_token_ids": (3, 50), "logit_bias": {3: 1.0, 50: -1.0}}[name]})  # type: ignore[arg-type]
    params.check_ids(51)
    with pytest.raises(BadRequest, match="ids are 0 to 49") as caught:
        params.check_ids(50)
    assert caught.value.param == name


def test_the_device_gets_every_wish() -> None:
    params = SamplingParams(
        temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.2,
        frequency_penalty=0.3, logit_bias=((7, 2.0),), min_tokens=2, stop_token_ids=(4, 0), logprobs=1,
        prompt_logprobs=2,
    )  # fmt: skip
    assert params.for_device(seed=9, eos_ids=(0, 5)) == Sampling(
        temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.2,
        frequency_penalty=0.3, logit_bias=((7, 2.0),), min_tokens=2, seed=9, stop_ids=(0, 5, 4), logprobs=1,
        prompt_logprobs=2,
    )  # fmt: skip
    assert replace(params, ignore_eos=True, seed=3).for_device(9, (5,)).stop_ids == (4, 0)


def test_derived_seeds_differ_and_repeat() -> None:
    seeds = [derive_seed(base, index) for base in (0, 1, MAX_SEED) for index in range(100)]
    assert len(set(seeds)) == 300
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
    assert seeds[0] == derive_seed(0, 0)


def test_a_size_beyond_all_memory_is_a_config_error() -> None:
    with pytest.raises(ConfigError):
        parse_bytes("9" * 400)
