"""Tokenizer: equal to the tokenizers and transformers libraries, and every broken file is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from ridgeline.core.errors import BadRequest, ModelError
from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.text.tokenizer import Tokenizer, byte_alphabet
from tests.tiny_gpt2 import write_tiny_tokenizer

GPT2_FILES = Path(__file__).parents[2].parent / "shared" / "data" / "gpt2-tokenizer"
needs_gpt2_files = pytest.mark.skipif(
    not (GPT2_FILES / "vocab.json").is_file(),
    reason="GPT-2's own vocab.json and merges.txt are not in ../shared/data/gpt2-tokenizer (they are not committed)",
)
# Any Unicode but surrogates, with the things that tokenizers treat specially more often than chance would have them.
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            ["<|endoftext|>", "\n\n", "  ", "\t", "'ll", "don't", "é", "日本", "🎉👩‍👩‍👧", "\u200d", "\x00", " 1234"]
        ),
    ),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_tokenizer(folder, vocab=320)
    return folder


@pytest.fixture(scope="module")
def tiny_vocab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-vocab")
    write_tiny_tokenizer(folder, vocab=320, layout="vocab.json")
    return folder


def test_both_layouts_are_the_same_tokenizer(tiny: Path, tiny_vocab: Path) -> None:
    first, second = Tokenizer.load(tiny), Tokenizer.load(tiny_vocab)
    assert first.table == second.table
    assert first.eos_text == second.eos_text == "<|endoftext|>"

    @settings(max_examples=200, deadline=None)
    @given(TEXTS)
    def check(text: str) -> None:
        ids = first.encode(text)
        assert ids.dtype == np.int32
        assert ids.tolist() == second.encode(text).tolist()
        assert first.decode(ids.tolist()) == text.replace("<|endoftext|>", "")

    check()


def test_any_ids_decode_as_the_library_decodes_them(tiny: Path) -> None:
    tokenizer, library = Tokenizer.load(tiny), Library.from_file(str(tiny / "tokenizer.json"))

    @settings(max_examples=250, deadline=None)
    @given(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20))
    def check(ids: list[int]) -> None:
        assert tokenizer.decode(ids) == library.decode(ids, skip_special_tokens=True)

    check()


@needs_gpt2_files
def test_gpt2_equals_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2TokenizerFast(vocab=str(GPT2_FILES / "vocab.json"), merges=str(GPT2_FILES / "merges.txt"))
    ours = Tokenizer.load(GPT2_FILES)
    assert (ours.vocab_size, ours.eos_text, ours.bytes_of(50256)) == (50257, "<|endoftext|>", b"")
    assert ours.encode("Hello, world!<|endoftext|>").tolist() == [15496, 11, 995, 0, 50256]
    ours.check(GPT2_SHAPES["gpt2"])

    @settings(max_examples=300, deadline=None)
    @given(TEXTS, st.lists(st.integers(0, 50256), max_size=12))
    def check(text: str, ids: list[int]) -> None:
        assert ours.encode(text).tolist() == theirs.encode(text)
        decoded = theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert ours.decode(ids) == decoded

    check()


def test_the_alphabet_covers_every_byte_once() -> None:
    assert sorted(byte_alphabet().values()) == list(range(256))


def test_ids_without_a_token_decode_to_nothing(tiny: Path) -> None:
    tokenizer = Tokenizer.load(tiny)
    assert tokenizer.bytes_of(10**6) == tokenizer.bytes_of(-1) == b""
    assert tokenizer.decode([10**6, 1]) == tokenizer.decode([1])


def test_half_a_surrogate_pair_is_the_clients_mistake(tiny: Path) -> None:
    with pytest.raises(BadRequest, match="surrogate") as caught:
        Tokenizer.load(tiny).encode("a\ud800b")
    assert caught.value.param == "prompt"


def test_a_tokenizer_larger_than_the_model_is_refused(tiny: Path) -> None:
    tokenizer = Tokenizer.load(tiny)
    spec = GPT2_SHAPES["gpt2"]
    tokenizer.check(spec)
    small = type(spec)(1, 8, 1, 8, vocab=tokenizer.vocab_size - 1, max_positions=8)
    with pytest.raises(ModelError, match="vocab_size"):
        tokenizer.check(small)


def test_an_added_token_that_is_no_special_token_is_text(tiny: Path, tmp_path: Path) -> None:
    library = Library.from_file(str(tiny / "tokenizer.json"))
    library.add_tokens(["ßtraße"])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    ids = tokenizer.encode("a ßtraße!")
    assert tokenizer.vocab_size - 1 in ids
    assert tokenizer.decode(ids.tolist()) == "a ßtraße!"


def with_json(folder: Path, **changes: Any) -> Path:
    values = json.loads((folder / "tokenizer.json").read_text())
    return _write(folder, json.dumps(values | changes))


def _write(folder: Path, text: str) -> Path:
    target = folder / "broken"
    target.mkdir(exist_ok=True)
    (target / "tokenizer.json").write_text(text)
    return target


BROKEN_JSON: list[dict[str, Any]] = [
    {"model": None},
    {"model": {"type": "WordPiece", "vocab": {}}},
    {"model": {"type": "BPE"}},
    {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}},
    {"model": {"type": "BPE", "vocab": {"a": 2**31}, "merges": []}},
    {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "zz"]]}},
    {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []},
    {"model": {"type": "BPE", "dropout": 0.5, "vocab": {"a": 0}, "merges": []}},
    {"decoder": None},
    {"decoder": {"type": "WordPiece"}},
    {"pre_tokenizer": {"type": "Nonsense"}},
    {"added_tokens": "all of them"},
]


@pytest.mark.parametrize("changes", BROKEN_JSON, ids=lambda changes: json.dumps(changes)[:60])
def test_a_broken_tokenizer_json_is_refused_by_name(tiny: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.load(with_json(tiny, **changes))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": NaN}', "[" * 100_000], ids=lambda text: repr(text[:12]))
def test_something_else_than_a_json_object_is_refused(tiny: Path, text: str) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.load(_write(tiny, text))


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        ("vocab.json", '{"a": "b"}', "vocab.json"),
        ("vocab.json", '{"a": 99999999999}', "vocab.json"),
        ("vocab.json", "{}", "json|merges"),
        ("merges.txt", "#version: 0.2\na b c\n", "merges.txt: line 2"),
        ("merges.txt", "zzz yyy\n", "merges.txt"),
    ],
)
def test_broken_vocab_and_merges_are_refused_by_name(
    tiny_vocab: Path, tmp_path: Path, file: str, text: str, match: str
) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((tiny_vocab / name).read_bytes())
    (tmp_path / file).write_text(text)
    with pytest.raises(ModelError, match=match):
        Tokenizer.load(tmp_path)


def test_a_folder_without_a_tokenizer_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json, or vocab\.json and merges\.txt"):
        Tokenizer.load(tmp_path)
