"""Tokenizer: text to token ids and back, for byte-level BPE (GPT-2's kind). Knows no model and no request.

A byte-level token is a string of bytes, so decoding is a table and one join; only encoding needs a library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Library

from ridgeline.core.errors import BadRequest, ModelError
from ridgeline.core.folder import MERGES, SETTINGS, SETTINGS_BYTES, TOKENIZER, VOCAB
from ridgeline.core.jsonfile import MIB, Fields, read_object, read_text
from ridgeline.core.spec import ModelSpec
from ridgeline.core.types import Tokens

END_OF_TEXT = "<|endoftext|>"
MAX_IDS = 2**20
ROLES = ("bos_token", "pad_token", "unk_token")


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for every byte: itself where it prints, otherwise the next one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


class Tokenizer:
    """Make one with `Tokenizer.load(folder)`.

    table[id]: the bytes of a token, nothing for special tokens (they do not belong to the text) and for ids that no
    token has. texts[id]: the same as a string where it is whole UTF-8 by itself, otherwise None. eos_text: the token
    that ends a text, as a string. special[id]: the name of a special token. roles: which token has a role
    (`bos_token`, `pad_token`), by the tokenizer's settings.
    """

    def __init__(
        self, library: Library, eos_text: str | None, table: list[bytes], roles: Mapping[str, str] | None = None
    ) -> None:
        self.eos_text = eos_text
        self.roles = dict(roles or {})
        added = library.get_added_tokens_decoder()
        self.special = {token_id: token.content for token_id, token in added.items() if token.special}
        self.table = table
        self.texts = [_whole(data) for data in table]
        self._library = library

    @staticmethod
    def load(folder: Path) -> Tokenizer:
        """From tokenizer.json, or from vocab.json and merges.txt. The files are untrusted; raises ModelError."""
        path = folder / TOKENIZER
        settings = Fields(folder / SETTINGS, _optional(folder / SETTINGS))
        if path.is_file():
            library, special = _from_json(path)
        elif (folder / VOCAB).is_file() and (folder / MERGES).is_file():
            path = folder / VOCAB
            library, special = _from_vocab(folder, settings.flag("add_prefix_space", default=False))
        else:
            raise ModelError(f"{folder}: has no tokenizer; a model folder needs {TOKENIZER}, or {VOCAB} and {MERGES}")
        library.no_truncation()
        library.no_padding()
        table = _byte_table(path, library, special)
        return Tokenizer(library, _eos_text(settings, library), table, _roles(settings, library))

    @property
    def vocab_size(self) -> int:
        """Every id is below this."""
        return len(self.table)

    def encode(self, text: str, add_special_tokens: bool = True) -> Tokens:
        """Token ids, int32 [tokens]. Special tokens written in the text are recognised.

        add_special_tokens: add what the tokenizer puts around a text (a begin of text, where the model has one); a
        chat template writes its own. Raises BadRequest for a string that is not Unicode text.
        """
        try:
            ids = self._library.encode(text, add_special_tokens=add_special_tokens).ids
        except (UnicodeEncodeError, TypeError) as error:
            message = "prompt: contains half of a surrogate pair, which is not text"
            raise BadRequest(message, param="prompt") from error
        return np.array(ids, np.int32)

    def bytes_of(self, token_id: int) -> bytes:
        return self.table[token_id] if 0 <= token_id < len(self.table) else b""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens, special ones left out; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")

    def check(self, spec: ModelSpec) -> None:
        """Raises ModelError if the tokenizer can make an id that the model has no embedding for."""
        if self.vocab_size > spec.vocab:
            raise ModelError(
                f"the tokenizer has ids up to {self.vocab_size - 1}, but the model's vocab_size is {spec.vocab}; "
                f"{TOKENIZER} (or {VOCAB}) and config.json belong to different models: download both again"
            )


def _whole(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path, max_bytes=SETTINGS_BYTES) if path.is_file() else {}


def _from_json(path: Path) -> tuple[Library, set[str]]:
    values = read_object(path, max_bytes=64 * MIB)
    _check_byte_level(path, values)
    library = _build(path, lambda: Library.from_str(path.read_text("utf-8-sig")))
    added = library.get_added_tokens_decoder().values()
    return library, {token.content for token in added if token.special}


def _check_byte_level(path: Path, values: dict[str, Any]) -> None:
    model = values.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if kind != "BPE" or "ByteLevel" not in _kinds(values.get("decoder")):
        raise ModelError(
            f"{path}: holds a tokenizer of the kind {kind!r} with the decoder {_kinds(values.get('decoder'))}; "
            "only byte-level BPE, which GPT-2 models use, is implemented"
        )
    assert isinstance(model, dict)
    if model.get("dropout"):
        raise ModelError(f"{path}: model.dropout makes encoding random; set it to null")


def _kinds(part: object) -> list[str]:
    """The types of a tokenizer's part, which may be a sequence of parts."""
    if not isinstance(part, dict):
        return []
    inner = part.get("decoders")
    if part.get("type") == "Sequence" and isinstance(inner, list):
        return [str(item.get("type")) for item in inner if isinstance(item, dict)]
    return [str(part.get("type"))]


def _from_vocab(folder: Path, prefix_space: bool) -> tuple[Library, set[str]]:
    vocab = read_object(folder / VOCAB, max_bytes=32 * MIB)
    if any(type(i) is not int or not 0 <= i < MAX_IDS for i in vocab.values()):
        raise ModelError(f"{folder / VOCAB}: every token needs an id from 0 to {MAX_IDS - 1}; download it again")
    merges = _merges(folder / MERGES)
    library = _build(folder / MERGES, lambda: Library(models.BPE(vocab=vocab, merges=merges)))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    library.decoder = decoders.ByteLevel()
    special = {END_OF_TEXT} & vocab.keys()
    library.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return library, special


def _merges(path: Path) -> list[tuple[str, str]]:
    lines = read_text(path, max_bytes=32 * MIB).split("\n")
    merges = []
    for number, line in enumerate(lines, start=1):
        # Only the first line can be a comment: `#` is also a token.
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.rstrip("\r").split(" ")
        if len(parts) != 2:
            raise ModelError(f"{path}: line {number} is not two tokens with a space between; download the file again")
        merges.append((parts[0], parts[1]))
    return merges


def _build(path: Path, make: Any) -> Library:
    try:
        library: Library = make()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # The library's panics are no Exceptions.
        raise ModelError(f"{path}: not a usable tokenizer ({error}); download it again") from error
    return library


def _eos_text(settings: Fields, library: Library) -> str | None:
    text = _named(settings, library, "eos_token")
    return text or (END_OF_TEXT if library.token_to_id(END_OF_TEXT) is not None else None)


def _roles(settings: Fields, library: Library) -> dict[str, str]:
    named = {role: _named(settings, library, role) for role in ROLES}
    return {role: text for role, text in named.items() if text is not None}


def _named(settings: Fields, library: Library, role: str) -> str | None:
    """The token with that role, if the settings name one that exists."""
    named = settings.values.get(role)
    text = named.get("content") if isinstance(named, dict) else named
    try:
        return text if isinstance(text, str) and library.token_to_id(text) is not None else None
    except UnicodeEncodeError as error:
        raise settings.refuse(role, "but must be text, without half a surrogate pair") from error


def _byte_table(path: Path, library: Library, special: set[str]) -> list[bytes]:
    vocab, alphabet = library.get_vocab(with_added_tokens=True), byte_alphabet()
    added = {token.content for token in library.get_added_tokens_decoder().values()}
    highest = max(vocab.values(), default=-1)
    if not 0 <= highest < MAX_IDS:
        raise ModelError(f"{path}: the highest token id is {highest}, but must be from 0 to {MAX_IDS - 1}")
    table = [b""] * (highest + 1)
    for text, token_id in vocab.items():
        if text in special:
            continue
        codes = [alphabet.get(char) for char in text] if text not in added else [None]
        known = [code for code in codes if code is not None]
        # A token that was added as plain text, or that holds characters outside the alphabet, stands for itself.
        table[token_id] = bytes(known) if len(known) == len(codes) else text.encode("utf-8", "replace")
    return table
