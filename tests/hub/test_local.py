"""Local directories: accepted when complete, otherwise refused with a sentence that says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ridgeline.core.errors import ModelError
from ridgeline.core.folder import weight_files
from ridgeline.hub import Access, resolve
from tests.tiny_gpt2 import write_tiny_gpt2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_gpt2(tmp_path / "tiny", layers=1, positions=16)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write_tiny_gpt2(tmp_path / "sharded", layers=1, positions=16, shards=2, tokenizer="vocab.json")


def test_a_directory_is_served_under_its_own_name(folder: Path, sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve(str(folder))
    assert (found.weights, found.name, found.source, found.note) == (folder, "tiny", "local", None)
    assert resolve(str(sharded)).name == "sharded"
    monkeypatch.chdir(folder.parent)
    assert resolve("tiny").name == resolve("./tiny/").name == "tiny"


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("pytorch_model.bin", r"only pickled weights.*M\.from_pretrained\('FOLDER'\)\.save_pretrained"),
        ("gpt2.gguf", "only GGUF weights.*gguf_file="),
        ("tf_model.h5", "has no weights; a model folder needs model.safetensors"),
    ],
)
def test_other_weights_are_refused_with_the_way_out(folder: Path, file: str, says: str) -> None:
    (folder / "model.safetensors").rename(folder / file)
    with pytest.raises(ModelError, match=says):
        resolve(str(folder))
    if file.endswith((".bin", ".gguf")):
        with pytest.raises(ModelError, match=says):
            resolve(str(folder / file))


def test_a_directory_of_gguf_alone_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "model.Q8_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="only GGUF weights"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", "no weights"),
    ],
)
def test_a_missing_file_is_named(folder: Path, file: str, says: str) -> None:
    (folder / file).unlink()
    with pytest.raises(ModelError, match=says):
        resolve(str(folder))


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors is missing"):
        resolve(str(sharded))


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/passwd", "a/b.safetensors", ".safetensors", 7, ""])
def test_an_index_cannot_name_files_elsewhere(sharded: Path, name: object) -> None:
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"wte.weight": name}}))
    with pytest.raises(ModelError, match="no safetensors file beside it"):
        weight_files(sharded)


@pytest.mark.parametrize("text", ["", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_a_broken_index_is_refused_by_name(sharded: Path, text: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json"):
        weight_files(sharded)


def test_a_git_lfs_pointer_is_recognised(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        resolve(str(folder))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/no-such-model-here", "nowhere/", "model.gguf"])
def test_a_path_that_does_not_exist_is_said_to_be_one(name: str) -> None:
    with pytest.raises(ModelError, match="no such directory"):
        resolve(name, Access(offline=True))


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "x--y", "x..y", "-x", "x.git", "ü", "a\0b", "x" * 5000, "-h"])
def test_a_name_that_no_model_can_have_is_refused_without_asking(name: str) -> None:
    with pytest.raises(ModelError, match="neither a directory here nor a name"):
        resolve(name, Access(endpoint="http://nothing.invalid"))


def test_safetensors_of_another_name_are_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "gptq_model-4bit-128g.safetensors")
    with pytest.raises(
        ModelError, match=r"has no model\.safetensors, but gptq_model-4bit-128g\.safetensors.*GPTQ or AWQ"
    ):
        resolve(str(folder))
