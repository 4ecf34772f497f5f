"""Checkpoints as they are found, and those that must be refused with a sentence that says why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ridgeline.core.errors import ModelError
from ridgeline.core.spec import ModelSpec
from ridgeline.models.gpt2 import GPT2
from ridgeline.models.gpt2_weights import load_gpt2, random_gpt2, tensor_names
from tests.tensors import TINY, all_logits, cpu, dense

Tensors = dict[str, torch.Tensor]
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def tensors(spec: ModelSpec = TINY, seed: int = 0) -> Tensors:
    """A checkpoint of this shape with the names and layouts of the hub's gpt2."""
    d, inner = spec.d_model, spec.d_inner
    sizes = {
        "attn.c_attn.weight": (d, 3 * d), "attn.c_attn.bias": (3 * d,), "attn.c_proj.weight": (d, d),
        "mlp.c_fc.weight": (d, inner), "mlp.c_fc.bias": (inner,), "mlp.c_proj.weight": (inner, d),
        "wte.weight": (spec.vocab, d), "wpe.weight": (spec.max_positions, d), "lm_head.weight": (spec.vocab, d),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(sizes.get(name.split(".", 2)[-1] if name[:2] == "h." else name, (d,)), generator=generator)
        for name in tensor_names(spec)
    }


def load(folder: Path, spec: ModelSpec = TINY) -> GPT2:
    return load_gpt2(spec, folder, dense(cpu()), cpu())


def logits(folder: Path, spec: ModelSpec = TINY) -> torch.Tensor:
    return all_logits(load(folder, spec), [3, 1, 4, 1, 5, 9, 2, 6])


def write_shards(folder: Path, given: Tensors, count: int = 3) -> dict[str, str]:
    places: dict[str, str] = {}
    for shard in range(count):
        file = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        part = dict(list(given.items())[shard::count])
        save_file(part, folder / file)
        places |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


@pytest.fixture
def expected(tmp_path: Path) -> torch.Tensor:
    (tmp_path / "plain").mkdir()
    save_file(tensors(), tmp_path / "plain" / SINGLE)
    return logits(tmp_path / "plain")


def test_names_with_the_prefix(tmp_path: Path, expected: torch.Tensor) -> None:
    save_file({f"transformer.{name}": tensor for name, tensor in tensors().items()}, tmp_path / SINGLE)
    assert torch.equal(logits(tmp_path), expected)


def test_mask_buffers_are_ignored(tmp_path: Path, expected: torch.Tensor) -> None:
    mask = torch.ones(64, 64, dtype=torch.uint8).tril()[None, None]
    extra = {"h.0.attn.bias": mask, "h.1.attn.bias": mask.clone(), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    save_file(tensors() | extra, tmp_path / SINGLE)
    assert torch.equal(logits(tmp_path), expected)


def test_shards(tmp_path: Path, expected: torch.Tensor) -> None:
    write_shards(tmp_path, tensors())
    assert torch.equal(logits(tmp_path), expected)


def test_a_head_that_repeats_the_embedding(tmp_path: Path, expected: torch.Tensor) -> None:
    given = tensors()
    save_file(given | {"lm_head.weight": given["wte.weight"].clone()}, tmp_path / SINGLE)
    assert torch.equal(logits(tmp_path), expected)
    save_file(given | {"lm_head.weight": given["wte.weight"] + 1}, tmp_path / SINGLE)
    with pytest.raises(ModelError, match=r"lm_head\.weight differs from wte\.weight"):
        load(tmp_path)


def test_a_head_of_its_own(tmp_path: Path, expected: torch.Tensor) -> None:
    spec = replace(TINY, tied_head=False)
    save_file(tensors(spec), tmp_path / SINGLE)
    assert not torch.equal(logits(tmp_path, spec), expected)
    save_file(tensors(), tmp_path / SINGLE)
    with pytest.raises(ModelError, match=r"lm_head\.weight is missing"):
        load(tmp_path, spec)


def test_16_bit_files_are_widened_exactly(tmp_path: Path) -> None:
    halves = {name: tensor.to(torch.bfloat16) for name, tensor in tensors().items()}
    save_file(halves, tmp_path / SINGLE)
    (tmp_path / "wide").mkdir()
    save_file({name: tensor.to(torch.float32) for name, tensor in halves.items()}, tmp_path / "wide" / SINGLE)
    assert torch.equal(logits(tmp_path), logits(tmp_path / "wide"))


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    given = tensors()
    save_file(given | {"lm_head.weight": given["wte.weight"].clone()}, tmp_path / SINGLE)
    seen: list[tuple[int, int]] = []
    load_gpt2(TINY, tmp_path, dense(cpu()), cpu(), progress=lambda done, total: seen.append((done, total)))
    total = 4 * TINY.parameters
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (total, total)


def test_the_model_outlives_the_file(tmp_path: Path, expected: torch.Tensor) -> None:
    save_file(tensors(), tmp_path / SINGLE)
    model = load(tmp_path)
    (tmp_path / SINGLE).write_bytes(b"")
    assert torch.equal(all_logits(model, [3, 1, 4, 1, 5, 9, 2, 6]), expected)


def test_wrong_tensors_are_named(tmp_path: Path) -> None:
    given = tensors()
    for change, words in (
        ({"h.1.mlp.c_fc.weight": torch.zeros(32, 65)}, r"h\.1\.mlp\.c_fc\.weight has shape \[32, 65\].*\[32, 64\]"),
        ({"wpe.weight": torch.zeros(63, 32)}, r"wpe\.weight has shape \[63, 32\].*\[64, 32\]"),
        ({"ln_f.bias": torch.zeros(32, dtype=torch.int64)}, r"ln_f\.bias has format I64; expected one of F32"),
        ({"h.0.attn.lora_a": torch.zeros(1), "score.weight": torch.zeros(1)}, r"h\.0\.attn\.lora_a, score\.weight are"),
    ):
        save_file(given | change, tmp_path / SINGLE)
        with pytest.raises(ModelError, match=words):
            load(tmp_path)
    del given["h.0.ln_1.bias"]
    save_file(given, tmp_path / SINGLE)
    with pytest.raises(ModelError, match=r"tensor h\.0\.ln_1\.bias is missing"):
        load(tmp_path)


def test_a_name_with_and_without_prefix_is_refused(tmp_path: Path) -> None:
    save_file(tensors() | {"transformer.ln_f.bias": torch.zeros(32)}, tmp_path / SINGLE)
    with pytest.raises(ModelError, match="twice"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -1000])
def test_a_truncated_file_is_refused(keep: int, tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / SINGLE)
    whole = (tmp_path / SINGLE).read_bytes()
    (tmp_path / SINGLE).write_bytes(whole[:keep])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load(tmp_path)


def test_a_corrupt_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load(tmp_path)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x.safetensors", "x.bin", 7]
)
def test_an_index_may_not_lead_elsewhere(name: object, tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors.kept")
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(tensors(), tmp_path / SINGLE)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"wte.weight": name}}))
    with pytest.raises(ModelError, match="index"):
        load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": {}}}', "\udcff"])
def test_a_broken_index_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match="index"):
        load(tmp_path)


def test_missing_shards_are_named(tmp_path: Path) -> None:
    places = write_shards(tmp_path, tensors())
    moved = places | {"wte.weight": next(file for file in places.values() if file != places["wte.weight"])}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(ModelError, match=r"places wte\.weight in"):
        load(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    (tmp_path / places["wte.weight"]).unlink()
    with pytest.raises(ModelError, match="is missing"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_pickled_weights_are_refused_with_a_way_out(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match=r"pickled.*Convert.*save_pretrained"):
        load(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"no weights; a model folder needs model\.safetensors, or model\.safetensors\.index\.json"
    ):
        load(tmp_path)


def test_random_weights_come_from_the_seed() -> None:
    ids = [1, 2, 3]
    one, again, other = (all_logits(random_gpt2(TINY, seed, dense(cpu()), cpu()), ids) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.std() > 0.01
