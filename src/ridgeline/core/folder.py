"""A model folder: which files make it complete, and which of a hub repository's files are worth fetching.

Knows names; opens only the index of a sharded checkpoint. The folder is untrusted: whatever is wrong is a ModelError.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ridgeline.core.errors import ModelError
from ridgeline.core.jsonfile import MIB, Fields, read_object

CONFIG, GENERATION = "config.json", "generation_config.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
INDEX_BYTES = 16 * MIB  # an index of shards at most
TOKENIZER, VOCAB, MERGES, SETTINGS = "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"
SETTINGS_BYTES = 8 * MIB  # some list every added token of a large vocabulary
CHAT_TEMPLATE = "chat_template.jinja"
DESCRIPTION = (CONFIG, GENERATION, TOKENIZER, VOCAB, MERGES, SETTINGS, CHAT_TEMPLATE)


def check_folder(folder: Path) -> None:
    """Raises ModelError unless the folder has a config, all its safetensors and a tokenizer."""
    try:
        _check_folder(folder)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error


def _check_folder(folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder}: {_why_no_config(folder)}")
    weight_files(folder)
    if not (folder / TOKENIZER).is_file() and not all((folder / name).is_file() for name in (VOCAB, MERGES)):
        raise ModelError(f"{folder}: has no tokenizer; a model folder needs {TOKENIZER}, or {VOCAB} and {MERGES}")


def wanted_files(names: Iterable[str]) -> list[str]:
    """Of a repository's files the few that are needed, weights last: a copy with all its weights is then complete.

    Raises ModelError if there are no safetensors. Never pickles, other frameworks' weights or programs.
    """
    there = set(names)
    weights = [SINGLE] if SINGLE in there else []
    if not weights and INDEX in there:
        weights = [INDEX, *sorted(name for name in there if re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", name))]
    if not weights:
        raise ModelError(why_no_weights(there))
    return [name for name in DESCRIPTION if name in there] + weights


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder, one or all shards, every one present. Raises ModelError."""
    if (folder / SINGLE).is_file():
        return (_not_a_pointer(folder / SINGLE),)
    if not (folder / INDEX).is_file():
        raise ModelError(f"{folder}: {why_no_weights(path.name for path in folder.iterdir())}")
    fields = Fields(folder / INDEX, read_object(folder / INDEX, max_bytes=INDEX_BYTES))
    shards = fields.values.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise fields.refuse("weight_map", "but must be an object from tensor names to file names; download it again")
    names = sorted({name if isinstance(name, str) else "" for name in shards.values()})
    for name in names:
        # The index is untrusted: a shard is a plain name beside it, never a path.
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors", name):
            raise ModelError(f"{fields.path}: weight_map names {name[:80]!r}, which is no safetensors file beside it")
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: {name} is missing, though {INDEX} names it; download the model again")
    return tuple(_not_a_pointer(folder / name) for name in names)


def _not_a_pointer(path: Path) -> Path:
    with path.open("rb") as file:
        if file.read(24) == b"version https://git-lfs.":
            raise ModelError(f"{path}: is a git-lfs pointer, not the weights; run `git lfs pull` in the folder")
    return path


def why_no_weights(names: Iterable[str]) -> str:
    """What to say about a folder or repository with these files and no safetensors."""
    names_seen = set(names)
    there = {Path(name).suffix for name in names_seen}
    if there & {".bin", ".pt", ".pth", ".ckpt", ".pkl"}:
        return (
            "has only pickled weights, and loading those runs whatever code they contain. Convert them to "
            "safetensors with transformers, where you trust them: "
            'python -c "from transformers import AutoModelForCausalLM as M; '
            "M.from_pretrained('FOLDER').save_pretrained('NEW_FOLDER')\""
        )
    if ".gguf" in there:
        return (
            "has only GGUF weights. Take the model that they were made from, or have transformers turn them back into "
            "safetensors (pip install transformers gguf): "
            'python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
            "[C.from_pretrained('FOLDER', gguf_file='NAME.gguf').save_pretrained('NEW_FOLDER') for C in (M, T)]\""
        )
    if others := sorted(name for name in names_seen if name.endswith(".safetensors")):
        return (
            f"has no {SINGLE}, but {others[0][:80]}; if these are plain weights, name them so; weights that GPTQ or "
            "AWQ rounded cannot be served: take the model that they were made from"
        )
    return f"has no weights; a model folder needs {SINGLE}, or {INDEX} and the files it names"


def _why_no_config(folder: Path) -> str:
    if any(path.suffix == ".gguf" for path in folder.iterdir()):
        return why_no_weights([".gguf.gguf"])
    return f"has no {CONFIG}; a model folder needs it, {SINGLE} and a tokenizer"
