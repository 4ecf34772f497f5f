"""TextStream against the naive definition: decode everything, cut at the first moment a stop string is complete."""

from __future__ import annotations

import codecs

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.text.stream import StopStrings, TextStream
from ridgeline.text.tokenizer import Tokenizer
from tests.text.byte_tokens import byte_tokenizer

REPLACEMENT = "\ufffd"


def certain_text(data: bytes, final: bool = False) -> str:
    """What no further byte can change."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data, final)


def naive(table: list[bytes], ids: list[int], stops: tuple[str, ...]) -> tuple[str, str | None, int]:
    """Text, the stop string found, tokens until then; by looking at every prefix of the tokens and of the text."""
    for count in range(1, len(ids) + 2):
        final = count > len(ids)
        text = certain_text(b"".join(table[i] for i in ids[:count]), final)
        for end in range(1, len(text) + 1):
            found = [stop for stop in stops if text[:end].endswith(stop)]
            if found:
                first = max(found, key=len)
                return text[: end - len(first)], first, min(count, len(ids))
    return certain_text(b"".join(table[i] for i in ids), final=True), None, len(ids)


# Few different characters, so that stop strings really occur; tokens cut them anywhere; some bytes are never valid.
LETTERS = "ab€é🎉"
PIECES = st.one_of(
    st.text(LETTERS, min_size=1, max_size=4).map(lambda text: text.encode()),
    st.binary(min_size=1, max_size=3),
    st.sampled_from([b"", b"\xff", b"\xe2", b"\x82", b"\xac", b"\xf0\x9f", b"\x8e\x89", b"\xc3", b"\xa9"]),
)
STOPS = st.lists(st.text(LETTERS + REPLACEMENT, min_size=1, max_size=4), max_size=4).map(tuple)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], list[list[int]], tuple[str, ...]]:
    """A table of tokens, token ids in chunks as they are pushed, and stop strings."""
    table = draw(st.lists(PIECES, min_size=1, max_size=8))
    chunks = draw(st.lists(st.lists(st.integers(0, len(table) - 1), max_size=4), max_size=12))
    return table, chunks, draw(STOPS)


@settings(max_examples=700, deadline=None)
@given(streams())
def test_joined_text_is_the_naive_text(case: tuple[list[bytes], list[list[int]], tuple[str, ...]]) -> None:
    table, chunks, stops = case
    ids = [i for chunk in chunks for i in chunk]
    stream = TextStream(byte_tokenizer(table), stops)
    text = "".join([*(stream.push(chunk) for chunk in chunks), stream.flush()])
    expected, stop, num_tokens = naive(table, ids, stops)
    assert (text, stream.stopped, stream.num_tokens) == (expected, stop, num_tokens)
    assert stream.dropped == len(ids) - num_tokens


@settings(max_examples=250, deadline=None)
@given(streams())
def test_what_is_pushed_never_has_to_be_taken_back(case: tuple[list[bytes], list[list[int]], tuple[str, ...]]) -> None:
    table, chunks, stops = case
    stream, out, ids = TextStream(byte_tokenizer(table), stops), "", list[int]()
    for chunk in chunks:
        out += stream.push(chunk)
        ids += chunk
        # Held back is only what must be: half a character, and the longest begun stop string.
        if stream.stopped is None:
            sure = certain_text(b"".join(table[i] for i in ids))
            begun = max((n for stop in stops for n in range(1, len(stop)) if sure.endswith(stop[:n])), default=0)
            assert out == sure[: len(sure) - begun]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.data())
def test_characters_cut_anywhere_are_whole_again(text: str, data: st.DataObject) -> None:
    raw = text.encode("utf-8", "replace")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=20)))
    table = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    stream = TextStream(byte_tokenizer(table))
    parts = [stream.push([i]) for i in range(len(table))]
    assert "".join(parts) == raw.decode() == text.encode("utf-8", "replace").decode()
    assert stream.flush() == ""


def spelled(*tokens: str) -> tuple[Tokenizer, list[int]]:
    return byte_tokenizer([token.encode() for token in tokens]), list(range(len(tokens)))


def test_a_stop_string_over_three_tokens_is_held_back_and_cut() -> None:
    tokenizer, ids = spelled("Hello", "\nUs", "er", ": hi", " there")
    stream = TextStream(tokenizer, ("\nUser:",))
    assert [stream.push([i]) for i in ids] == ["Hello", "", "", "", ""]
    assert (stream.stopped, stream.num_tokens, stream.dropped) == ("\nUser:", 4, 1)
    assert stream.flush() == ""


def test_a_begun_stop_string_that_does_not_come_is_text() -> None:
    tokenizer, ids = spelled("a", "\nUs", "ual", "\nUse")
    stream = TextStream(tokenizer, ("\nUser:",))
    assert [stream.push([i]) for i in ids] == ["a", "", "\nUsual", ""]
    assert stream.flush() == "\nUse"
    assert stream.stopped is None


def test_of_two_stops_complete_at_one_character_the_longer_wins() -> None:
    tokenizer, ids = spelled("xabcx")
    stream = TextStream(tokenizer, ("bc", "abc"))
    assert stream.push(ids) == "x"
    assert stream.stopped == "abc"


def test_the_stop_that_is_complete_first_wins_even_if_another_began_earlier() -> None:
    tokenizer, ids = spelled("xabcd")
    stream = TextStream(tokenizer, ("abcd", "bc"))
    assert stream.push(ids) == "xa"
    assert stream.stopped == "bc"


def test_half_a_character_at_the_end_becomes_one_replacement() -> None:
    stream = TextStream(byte_tokenizer([b"ok", b"\xf0\x9f"]))
    assert stream.push([0, 1]) == "ok"
    assert stream.flush() == REPLACEMENT


def test_ids_that_no_token_has_and_arrays_are_fine() -> None:
    tokenizer, _ = spelled("a", "b")
    stream = TextStream(tokenizer)
    assert stream.push(np.array([0, 999, 1], np.int32)) == "ab"
    assert stream.num_tokens == 3


def test_streams_share_an_automaton() -> None:
    tokenizer, _ = spelled("a", "b")
    stops = StopStrings(("ab",))
    first, second = TextStream(tokenizer, stops), TextStream(tokenizer, stops)
    assert first.push([0]) == ""
    assert second.push([1]) == "b"
    assert first.push([1]) == ""
    assert (first.stopped, second.stopped) == ("ab", None)
