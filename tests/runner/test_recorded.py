"""Recorded: a step that is played again gives bitwise what it gave operation by operation."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ridgeline.attention import native
from ridgeline.attention.native import Native
from ridgeline.core.types import Sampling
from ridgeline.device.cpu import CpuDevice
from ridgeline.device.jit import CPP, CannotBuild, Compiler
from ridgeline.device.recording import recording
from ridgeline.models.gpt2 import GPT2
from ridgeline.models.gpt2_weights import random_gpt2
from ridgeline.models.linear_cpu import CpuDense
from ridgeline.models.quantised import Int4, Int8, Integers
from ridgeline.ops import steps
from ridgeline.runner.graphs import NoGraphs, Replays
from ridgeline.runner.recorded import MOST, Recorded
from ridgeline.runner.runner import Runner
from tests.tensors import TINY, Way, decode_scored, dense, make_runner, random_prompts

SPEC = replace(TINY, d_model=64, heads=4, d_inner=256)
PROMPTS = random_prompts(np.random.default_rng(3), 6, 20, SPEC.vocab)
ASKED = [
    Sampling(),
    Sampling(temperature=0.9, seed=1, repetition_penalty=1.3, logprobs=2),
    Sampling(logit_bias=((5, 4.0), (6, -100.0)), logprobs=0),
    Sampling(temperature=1.0, top_p=0.8, seed=3, prompt_logprobs=1),
    Sampling(temperature=0.7, top_k=9, seed=4, stop_ids=tuple(range(0, 60, 3))),
    Sampling(frequency_penalty=0.6),
]
NEW = 12


@pytest.fixture(scope="module", autouse=True)
def compiles() -> None:
    try:
        Compiler.find(language=CPP)
    except CannotBuild as error:
        pytest.skip(str(error))


class Counting:
    """A model that counts its forward passes."""

    def __init__(self, model: GPT2) -> None:
        self.model, self.spec, self.passes = model, model.spec, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.model, name)

    def hidden(self, *given: object) -> torch.Tensor:
        self.passes += 1
        made: torch.Tensor = self.model.hidden(*given)  # type: ignore[arg-type]
        return made


def device_of(dtype: torch.dtype) -> CpuDevice:
    return CpuDevice(dtype, threads=2, native_bfloat16=dtype is torch.bfloat16)


def model_of(kind: type[Integers | CpuDense], device: CpuDevice) -> Counting:
    return Counting(random_gpt2(SPEC, 6, kind.of(device, None), device))


def runner_of(model: Counting, device: CpuDevice, graphs: Callable[..., Replays] = NoGraphs) -> Runner:
    return make_runner(model, device=device, attention=Native(native.build(None)), graphs=graphs)  # type: ignore[arg-type]


def recorded() -> Callable[..., Replays]:
    return partial(Recorded, steps.Native(steps.build(None)))


@pytest.mark.parametrize("way", [Way(), Way(horizon=4), Way(depth=2), Way(chunk=3, horizon=3, depth=2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", [Int8, Int4, CpuDense])
def test_tokens_and_scores_are_those_of_single_operations(
    kind: type[Integers | CpuDense], dtype: torch.dtype, way: Way
) -> None:
    device = device_of(dtype)
    model = model_of(kind, device)
    plain = decode_scored(runner_of(model, device), PROMPTS, NEW, ASKED, way)
    alone, model.passes = model.passes, 0
    played = decode_scored(runner_of(model, device, recorded()), PROMPTS, NEW, ASKED, way)
    assert [tokens for tokens, _ in played] == [tokens for tokens, _ in plain]
    for (_, found), (_, expected) in zip(played, plain, strict=True):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.values, other.values)
            np.testing.assert_array_equal(one.top_ids, other.top_ids)
    assert model.passes < alone


def test_a_number_of_rows_is_recorded_once(caplog: pytest.LogCaptureFixture) -> None:
    device = device_of(torch.bfloat16)
    model = model_of(Int8, device)
    runner = runner_of(model, device, recorded())
    with caplog.at_level(logging.INFO, "ridgeline"):
        decode_scored(runner, PROMPTS[:2], 30)
    assert model.passes <= 1 + 2  # the prompts' step, then one each of two rows and one
    assert not caplog.records


def test_old_recordings_make_room() -> None:
    """As many as there are numbers of rows would keep the activations of all."""
    device = device_of(torch.float32)
    model = model_of(Int8, device)
    slots = MOST + 4
    graphs = recorded()
    made: list[Recorded] = []

    def kept(*given: object) -> Replays:
        found = graphs(*given)
        assert isinstance(found, Recorded)
        made.append(found)
        return found

    runner = make_runner(
        model,  # type: ignore[arg-type]
        device=device, attention=Native(native.build(None)), graphs=kept, slots=slots,
    )  # fmt: skip
    prompts = random_prompts(np.random.default_rng(5), slots, 4, SPEC.vocab)
    sampling = [Sampling(stop_ids=tuple(range(0, SPEC.vocab, 7)))] * slots
    found = decode_scored(runner, prompts, 20, sampling)
    plain = decode_scored(
        make_runner(model, device=device, attention=Native(native.build(None)), slots=slots),  # type: ignore[arg-type]
        prompts, 20, sampling,
    )  # fmt: skip
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in plain]
    assert 1 < len(made[0].sizes) <= MOST


def test_a_step_with_an_operation_of_torch_is_not_played(caplog: pytest.LogCaptureFixture) -> None:
    """It would be left out of every step after the first."""
    device = device_of(torch.float32)
    model = Counting(random_gpt2(SPEC, 6, dense(device), device))
    plain = decode_scored(runner_of(model, device), PROMPTS, NEW, ASKED)
    with caplog.at_level(logging.INFO, "ridgeline"):
        found = decode_scored(runner_of(model, device, recorded()), PROMPTS, NEW, ASKED)
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in plain]
    (told,) = caplog.records
    assert "stands between native calls" in told.getMessage()


def test_calls_of_another_thread_are_not_recorded() -> None:
    """Each would be played in the other engine's steps."""
    native_steps = steps.Native(steps.build(None))
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
    with recording() as made:
        other = threading.Thread(target=native_steps.likeliest, args=(logits,))
        other.start()
        other.join()
        assert not made.calls
        native_steps.likeliest(logits)
    assert len(made.calls) == 1
