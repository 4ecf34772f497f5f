"""Tokens as words: what is no whole character, what has no text, and two tokens with one text."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline.core.logprobs import TokenLogprob
from ridgeline.server.words import LEAST, Offsets, chat_logprobs, completion_logprobs, spelled, word
from ridgeline.text.tokenizer import Tokenizer
from tests.server.live import EOS, byte_level_tokenizer
from tests.tiny_gpt2 import END_OF_TEXT, write_tiny_tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder, vocab=300)
    return Tokenizer.load(folder)


def test_a_special_token_has_its_name_and_a_token_of_nothing_its_id(tiny: Tokenizer) -> None:
    assert word(tiny, 0) == END_OF_TEXT
    assert word(tiny, 10**6) == "token_id:1000000"
    ids = tiny.encode(f"a{END_OF_TEXT}é").tolist()
    assert 0 in ids
    assert spelled(tiny, ids) == f"a{END_OF_TEXT}é"
    assert tiny.roles["bos_token"] == END_OF_TEXT


def test_two_tokens_with_one_text_keep_the_greater_value() -> None:
    tokenizer = byte_level_tokenizer()
    tokenizer.table[7] = b"A"
    score = TokenLogprob(7, -2.0, ((65, -0.5), (66, -1.0)))
    (top,) = completion_logprobs(tokenizer, [7], [score], [0])["top_logprobs"]
    assert top == {"A": -0.5, "B": -1.0}
    assert completion_logprobs(tokenizer, [7], [score], [0])["token_logprobs"] == [-2.0]


def test_an_impossible_token_has_a_number_that_json_can_hold() -> None:
    tokenizer, never = byte_level_tokenizer(), TokenLogprob(EOS, float("-inf"), ((65, 0.0),))
    told = completion_logprobs(tokenizer, [EOS], [never], [0])
    assert told["token_logprobs"] == [LEAST]
    assert told["top_logprobs"] == [{"A": 0.0, f"token_id:{EOS}": LEAST}]
    (item,) = chat_logprobs(tokenizer, [never])["content"]
    assert (item["logprob"], item["bytes"]) == (LEAST, None)
    assert item["top_logprobs"] == [{"token": "A", "logprob": 0.0, "bytes": [65]}]


def test_offsets_are_of_characters_and_a_cut_prompt_ends_in_one() -> None:
    offsets = Offsets(byte_level_tokenizer())
    assert offsets.of_prompt("aü🙂".encode()) == [0, 1, 1, 2, 2, 2, 2]
    assert offsets.of_output(b"bc") == [3, 4]
    cut = Offsets(byte_level_tokenizer())
    assert cut.of_prompt("ü".encode()[:1]) == [0]
    assert cut.of_output(b"b") == [1]
