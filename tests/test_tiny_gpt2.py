"""The tiny checkpoint is what it says it is: transformers loads it with nothing missing and nothing left over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny_gpt2 import write_tiny_gpt2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prefix": True, "shards": 3, "tied": False},
        {"dtype": "bfloat16", "masks": False, "heads": 4, "d_inner": 48, "tokenizer": "vocab.json"},
    ],
    ids=["hub layout", "prefix, shards, untied", "bfloat16, vocab.json"],
)
def test_transformers_loads_it(tmp_path: Path, options: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    folder = write_tiny_gpt2(tmp_path / "tiny", seed=3, **options)
    model, report = transformers.GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not {key for key in report["unexpected_keys"] if not key.endswith("attn.bias")}
    assert not report["mismatched_keys"]
    assert model.config.n_inner == options.get("d_inner")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) <= model.config.vocab_size
    assert tokenizer.decode(tokenizer.encode("the river in 1843: naïve 日本")) == "the river in 1843: naïve 日本"


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_tiny_gpt2(tmp_path / name, seed=7) for name in ("a", "b"))
    for path in sorted(first.iterdir()):
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name
    other = write_tiny_gpt2(tmp_path / "c", seed=8)
    assert (other / "model.safetensors").read_bytes() != (first / "model.safetensors").read_bytes()
