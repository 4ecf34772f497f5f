"""Models saved in integers: the same bits as rounding at load, on every road, and no byte of a file is believed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ridgeline import LLM, SamplingParams
from ridgeline.core.checkpoint import read_spec
from ridgeline.core.errors import ConfigError, ModelError
from ridgeline.core.quantisation import SAVED, described
from ridgeline.device.cpu import CpuDevice
from ridgeline.menu import chosen
from ridgeline.models.quantised import Int4, Int8, Integers
from ridgeline.models.saved import load_saved
from ridgeline.models.saving import save
from ridgeline.ops.packed import Packed
from tests.tiny_gpt2 import write_tiny_gpt2

CPU = CpuDevice(torch.float32, threads=1)
DEFINED: dict[str, Integers] = {"int8": Int8(None, torch.float32), "int4": Int4(None, torch.float32)}
GREEDY = SamplingParams(max_tokens=16, temperature=0.0)
WEIGHTS = "model.safetensors"


def quiet(_done: int, _whole: int) -> None:
    """No progress shown."""


def saved(scheme: str, source: Path, target: Path) -> Path:
    save(read_spec(source), source, target, DEFINED[scheme], CPU, quiet)
    return target


def tokens(model: Path, **options: Any) -> list[int]:
    llm = LLM(str(model), device="cpu", kv_memory="16MiB", max_num_seqs=4, **options)
    return [token for made in llm.generate(["Once upon a", "The sea"], GREEDY) for token in made.token_ids]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """No width of it is a multiple of a group, a chunk or a strip."""
    return write_tiny_gpt2(tmp_path / "odd", heads=3, d_model=51, d_inner=77, vocab=391)


@pytest.mark.parametrize("bits", [8, 4])
def test_codes_and_back_are_the_same_bytes(bits: int) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for d_out, d_in in [(1, 1), (16, 64), (700, 1000), *((rng.randint(1, 99), rng.randint(1, 300)) for _ in range(40))]:
        weight = torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(rng.randrange(1 << 30)))
        packed = Packed.of(weight, bits)
        again = Packed.of_codes(*packed.codes(), packed.scales[:d_out])
        for name in ("strips", "scales", "sums"):
            assert torch.equal(getattr(again, name), getattr(packed, name)), (name, d_out, d_in)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scheme", SAVED)
def test_tokens_are_those_of_rounding_at_load(scheme: str, dtype: str, odd: Path, tmp_path: Path) -> None:
    made = chosen("quantize", scheme).of(CPU, tmp_path)  # as an engine rounds on this machine
    save(read_spec(odd), odd, tmp_path / "saved", made, CPU, quiet)
    expected = tokens(odd, dtype=dtype, cache=tmp_path, quantize=scheme)
    assert tokens(tmp_path / "saved", dtype=dtype, cache=tmp_path) == expected
    assert tokens(tmp_path / "saved", dtype=dtype, cache=tmp_path, quantize=scheme) == expected


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., str]:
    def run(*arguments: object) -> str:
        command = [sys.executable, "-m", "ridgeline", *map(str, arguments)]
        environment = {**os.environ, "RIDGELINE_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scheme", SAVED)
def test_the_command_saves_what_serves_like_the_original(
    scheme: str, tied: bool, odd: Path, tmp_path: Path, run_cli: Callable[..., str]
) -> None:
    source = odd if tied else write_tiny_gpt2(tmp_path / "own-head", tied=False, prefix=True, shards=2)
    target = tmp_path / "a folder" / "saved"
    said = run_cli("quantize", "--model", source, "--quantize", scheme, "--out", target)
    assert "Serve it: ridgeline serve --model '" in said
    for dtype in ("float32", "bfloat16"):
        options = {"dtype": dtype, "cache": tmp_path / "kernels"}
        assert tokens(target, **options) == tokens(source, quantize=scheme, **options)
    assert (target / WEIGHTS).stat().st_size < 0.6 * sum(p.stat().st_size for p in source.glob("*.safetensors"))


def test_the_command_refuses_a_folder_that_is_taken_and_a_model_that_is_saved(
    odd: Path, tmp_path: Path, run_cli: Callable[..., str]
) -> None:
    target = saved("int4", odd, tmp_path / "saved")
    with pytest.raises(AssertionError, match="is there already"):
        run_cli("quantize", "--model", odd, "--out", target)
    with pytest.raises(AssertionError, match="is saved as int4 already"):
        run_cli("quantize", "--model", target, "--out", tmp_path / "twice")


def test_another_scheme_is_a_contradiction(odd: Path, tmp_path: Path) -> None:
    target = saved("int4", odd, tmp_path / "saved")
    with pytest.raises(ConfigError, match="--quantize int8: saved is saved as int4 already; leave the option out"):
        tokens(target, quantize="int8")
    assert tokens(target, determinism="batch", cache=tmp_path) == tokens(target, cache=tmp_path)


def test_a_folder_that_is_taken_stays_as_it_is(odd: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "note.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        saved("int8", odd, tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["note.txt"]


def test_what_could_not_be_finished_is_deleted(odd: Path, tmp_path: Path) -> None:
    spec = replace(read_spec(odd), d_inner=78)
    with pytest.raises(ModelError, match="has shape"):
        save(spec, odd, tmp_path / "half", DEFINED["int8"], CPU, quiet)
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("change", ["short", "wide", "float", "nan", "negative", "missing", "more", "cut"])
@pytest.mark.parametrize("scheme", SAVED)
def test_wrong_files_are_refused_by_name(scheme: str, change: str, odd: Path, tmp_path: Path) -> None:
    target = saved(scheme, odd, tmp_path / "saved")
    given, name = load_file(target / WEIGHTS), "h.1.mlp.c_fc.weight"
    codes, scales = given[f"{name}.codes"], given[f"{name}.scales"]
    changed: dict[str, dict[str, Tensor]] = {
        "short": {f"{name}.codes": codes[1:].clone()},
        "wide": {f"{name}.scales": torch.cat((scales, scales))},
        "float": {f"{name}.codes": codes.float()},
        "nan": {f"{name}.scales": scales * float("nan")},
        "negative": {f"{name}.scales": -scales},
        "more": {f"{name}": torch.zeros(51, 77)},
        "missing": {},
        "cut": {},
    }
    if change == "missing":
        del given[f"{name}.codes"]
    save_file(given | changed[change], target / WEIGHTS)
    if change == "cut":
        (target / WEIGHTS).write_bytes((target / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"not a whole safetensors" if change == "cut" else r"h\.1\.mlp\.c_fc\.weight"):
        load_saved(read_spec(target), target, DEFINED[scheme], CPU, None)


def test_random_bytes_are_served_or_refused(odd: Path, tmp_path: Path) -> None:
    """Every code and multiplier stands for something; sums fit, and nothing is read beyond its end."""
    target = saved("int4", odd, tmp_path / "saved")
    given = load_file(target / WEIGHTS)
    for name, tensor in given.items():
        if tensor.dtype is torch.uint8:
            given[name] = torch.randint(0, 256, tensor.shape, dtype=torch.uint8)
    save_file(given, target / WEIGHTS)
    assert len(tokens(target, cache=tmp_path)) == 32


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "version is 2, but this Ridgeline reads 1"),
        ({"version": None}, "version is missing"),
        ({"scheme": "int3"}, "scheme is 'int3', but must be one of int8, int4"),
        ({"group_size": 32}, "group_size is 32, but is 16 in int4"),
        ({"bits": 8}, "bits is 8, but is 4 in int4"),
        ({"quant_method": "gptq"}, r"quantised by GPTQ .*take the model it was made from.*ridgeline quantize"),
        ({"quant_method": "awq"}, "quantised by AWQ"),
        ({"quant_method": "bitsandbytes"}, "quantised by bitsandbytes"),
        ({"quant_method": "x" * 999}, "quantised by 'xxx"),
        ({"quant_method": None, "load_in_8bit": True}, "quantised by bitsandbytes"),
        ({"quant_method": ["gptq"]}, "quantised by a method without a name"),
    ],
)
def test_a_config_that_says_otherwise_is_refused(change: dict[str, Any], says: str, odd: Path) -> None:
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"quantization_config": described("int4") | change}))
    with pytest.raises(ModelError, match=says):
        read_spec(odd)


@pytest.mark.parametrize(("extra", "says"), [("g_idx", "GPTQ"), ("bias", "AWQ")])
def test_foreign_integers_are_known_without_a_config(extra: str, says: str, odd: Path) -> None:
    tensors = {f"transformer.h.0.attn.c_attn.{name}": torch.zeros(4, dtype=torch.int32) for name in ("qweight", extra)}
    save_file(tensors, odd / WEIGHTS)
    with pytest.raises(ModelError, match=f"quantised by {says}"):
        tokens(odd)
