"""Words: tokens and their log-probabilities as clients read them. Knows a tokenizer; knows no request and no chunk.

Two shapes of the same numbers: OpenAI's of completions (parallel lists) and of conversations (a list of objects).
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from ridgeline.core.logprobs import TokenLogprob
from ridgeline.text.tokenizer import Tokenizer

Json = dict[str, Any]

LEAST = -9999.0
"""Stands for minus infinity, which JSON does not have."""

_new_decoder = codecs.getincrementaldecoder("utf-8")


def whole_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """A token's bytes; of a special token those of its name, which a prompt may contain."""
    return tokenizer.bytes_of(token_id) or tokenizer.special.get(token_id, "").encode()


def word(tokenizer: Tokenizer, token_id: int) -> str:
    """A token as a string. One that is no whole UTF-8 is written `bytes:\\xe2\\x80`, as OpenAI does."""
    data = whole_bytes(tokenizer, token_id)
    if not data:
        return f"token_id:{token_id}"
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def spelled(tokenizer: Tokenizer, token_ids: Iterable[int]) -> str:
    """The text of tokens, special ones by name; bytes that are not UTF-8 become U+FFFD."""
    return b"".join(whole_bytes(tokenizer, one) for one in token_ids).decode("utf-8", "replace")


class Offsets:
    """Where each token's text begins, in characters. A token that continues a character begins after those before."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._decoder, self._at = tokenizer, _new_decoder("replace"), 0

    def of_prompt(self, token_ids: Iterable[int]) -> list[int]:
        offsets = [self._next(whole_bytes(self._tokenizer, one)) for one in token_ids]
        self._at += len(self._decoder.decode(b"", True))  # the output's text begins anew
        return offsets

    def of_output(self, token_ids: Iterable[int]) -> list[int]:
        """The text has no special tokens."""
        return [self._next(self._tokenizer.bytes_of(one)) for one in token_ids]

    def _next(self, data: bytes) -> int:
        at = self._at
        self._at += len(self._decoder.decode(data))
        return at


Score = TokenLogprob | None
"""None: nothing comes before the first token of a prompt, so it has no probability."""


def completion_logprobs(
    tokenizer: Tokenizer, token_ids: Sequence[int], scores: Sequence[Score], offsets: Sequence[int]
) -> Json:
    """As /v1/completions has them. top_logprobs holds the token itself as well as the likeliest ones."""
    return {
        "tokens": [word(tokenizer, one) for one in token_ids],
        "token_logprobs": [None if score is None else max(score.logprob, LEAST) for score in scores],
        "top_logprobs": [None if score is None else _by_word(tokenizer, score) for score in scores],
        "text_offset": list(offsets),
    }


def _by_word(tokenizer: Tokenizer, score: TokenLogprob) -> dict[str, float]:
    """Different tokens can have the same text; the likeliest of them keeps the place."""
    named: dict[str, float] = {}
    for token_id, value in (*score.top, (score.token_id, score.logprob)):
        name = word(tokenizer, token_id)
        named[name] = max(value, named.get(name, LEAST))
    return named


def chat_logprobs(tokenizer: Tokenizer, scores: Sequence[TokenLogprob]) -> Json:
    """As /v1/chat/completions has them."""
    items = [
        _item(tokenizer, score.token_id, score.logprob)
        | {"top_logprobs": [_item(tokenizer, one, value) for one, value in score.top]}
        for score in scores
    ]
    return {"content": items, "refusal": None}


def _item(tokenizer: Tokenizer, token_id: int, value: float) -> Json:
    data = whole_bytes(tokenizer, token_id)
    return {"token": word(tokenizer, token_id), "logprob": max(value, LEAST), "bytes": list(data) if data else None}
