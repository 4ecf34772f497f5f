"""Which attention serves a model: as asked, or as well as this machine can, and a refusal says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ridgeline.attending import Attending, choose_attention
from ridgeline.attention import native
from ridgeline.attention.native import Native
from ridgeline.attention.reference import Reference
from ridgeline.build import EngineOrder, Loaded, make_engine
from ridgeline.core.config import Config
from ridgeline.core.cost import Row, StepShape, step_costs, total
from ridgeline.core.errors import ConfigError
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.device.cpu import CpuDevice
from ridgeline.device.jit import CannotBuild
from ridgeline.lab.ladder.rungs import base, changed, ladder
from ridgeline.lab.rig import Workbench
from tests.tiny_gpt2 import write_tiny_gpt2

CPU = CpuDevice(torch.float32)


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    try:
        native.build(tmp_path)
    except CannotBuild as error:
        pytest.skip(str(error))
    return tmp_path


def choose(cache: Path | None, **options: Any) -> Attending:
    return choose_attention(Config.of(random_weights="gpt2", **options), GPT2_SHAPES["gpt2"], CPU, cache)


def no_compiler(_cache: Path | None) -> Any:
    raise CannotBuild("there is no C++ compiler; install one")


def test_a_cpu_that_can_build_it_takes_the_native_one(kernels: Path) -> None:
    for attention in ("auto", "native"):
        made = choose(kernels, attention=attention)
        assert isinstance(made.attention, Native)
        assert (made.kv_dtype, made.note) == (torch.float32, None)
    assert isinstance(choose(kernels, attention="reference").attention, Reference)
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16), ("int8", torch.int8)):
        assert choose(kernels, kv_dtype=name).kv_dtype is dtype


def test_without_a_compiler_auto_falls_back_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "build", no_compiler)
    made = choose(None)
    assert isinstance(made.attention, Reference)
    assert made.note is not None
    assert "install one" in made.note
    with pytest.raises(ConfigError, match=r"--attention native: .*install one; leave --attention out"):
        choose(None, attention="native")
    with pytest.raises(ConfigError, match=r"--kv-dtype int8: .*install one.*; leave --kv-dtype out"):
        choose(None, kv_dtype="int8")


def test_heads_that_do_not_suit_it(tmp_path: Path) -> None:
    folder = write_tiny_gpt2(tmp_path / "tiny", heads=4)
    order = EngineOrder(Config.of(model=str(folder), device="cpu", attention="native"), "tiny", folder)
    with pytest.raises(ConfigError, match="this model's have 8"):
        choose_attention(order.config, order.spec(), CPU, None)
    order = EngineOrder(Config.of(model=str(folder), device="cpu", dtype="float32"), "tiny", folder)
    _, info = make_engine(order, lambda *_: None)
    assert any("this model's have 8" in note for note in info.notes)


def test_a_cache_of_8_bits_is_planned_and_costed_with_its_scales(kernels: Path) -> None:
    for name, bits, scale in (("auto", 32, 0), ("bfloat16", 16, 0), ("int8", 8, 32)):
        made, spec = choose(kernels, kv_dtype=name), EngineOrder(Config.of(random_weights="gpt2"), "", None).spec()
        planned = made.attention.block_bytes(spec, 16, made.kv_dtype)
        assert planned == 16 * 12 * 2 * (768 * bits + 12 * scale) // 8
        order = EngineOrder(Config.of(random_weights="gpt2", kv_dtype=name), "", None, cache=kernels)
        formats = Workbench(order, Loaded(CPU, model=None)).formats  # type: ignore[arg-type]
        assert (formats.kv_bits, formats.kv_scale_bits, formats.weight_bits) == (bits, scale, 32)


def test_pages_are_costed_with_the_scales_that_they_have() -> None:
    for name, bits, scale in (("auto", 32, 0), ("int8", 8, 16), ("fp8", 8, 16)):
        order = EngineOrder(Config.of(random_weights="gpt2", attention="paged", kv_dtype=name), "", None)
        made = choose_attention(order.config, order.spec(), CPU, order.cache)
        formats = Workbench(order, Loaded(CPU, model=None)).formats  # type: ignore[arg-type]
        assert (formats.kv_bits, formats.kv_scale_bits) == (bits, scale)
        spec = order.spec()
        cached = total(step_costs(spec, StepShape((Row(1, 1000),), 0), formats), "attention").streamed_bytes
        stored = made.attention.block_bytes(spec, 16, made.kv_dtype) // 16
        assert cached == 1001 * stored


def test_the_ladder_has_rungs_for_both() -> None:
    rungs = {rung.name: rung for rung in ladder()}
    assert not rungs["attention-native"].lossy
    assert rungs["kv-dtype-int8"].lossy
    lowest = base(Config.of())
    assert (lowest.batching.attention, lowest.batching.kv_dtype) == ("reference", "auto")
    assert changed(lowest, rungs["attention-native"].change).batching.attention == "native"
