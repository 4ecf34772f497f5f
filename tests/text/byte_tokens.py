"""A tokenizer whose tokens are any byte strings, to cut text where no trained tokenizer would."""

from __future__ import annotations

from tokenizers import Tokenizer as Library
from tokenizers import models

from ridgeline.text.tokenizer import Tokenizer


def byte_tokenizer(table: list[bytes]) -> Tokenizer:
    return Tokenizer(Library(models.BPE()), None, table)
