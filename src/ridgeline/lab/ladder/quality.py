"""Quality: what a lossy choice does to a model's predictions of a text. Knows engines; knows no option and no rung.

An engine reads a text in windows, and every token of a window after its first is scored by what the model expected
there (teacher forcing). Two engines that read the same windows give a perplexity each, and how often they would have
chosen the same token. The scores are those of a prompt's log-probabilities, so they pass through everything that
serves a request: weights, cache, attention, packing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from ridgeline.core.errors import BadRequest, ConfigError, ModelError
from ridgeline.core.types import Floats, Sampling, Tokens
from ridgeline.lab.driving import drive
from ridgeline.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ridgeline.build import EngineOrder
    from ridgeline.engine.engine import Engine

TEXT = "quality.txt"
Progress = Callable[[str, int, int], None]
"""Called with (what goes on, windows done, all of them)."""

# Beyond any logit, so that the biased token is chosen; scores are those of the model before the bias.
_CERTAIN = 1e6


@dataclass(frozen=True, slots=True)
class Reading:
    """How an engine read a text. losses: -log p of every token scored, in nats; best: the likeliest token there."""

    losses: Floats
    best: Tokens

    @property
    def perplexity(self) -> float:
        """Infinite where the model holds a token of the text for impossible."""
        mean = float(np.mean(self.losses, dtype=np.float64))
        return math.inf if mean > _LARGEST_EXPONENT else math.exp(mean)


_LARGEST_EXPONENT = 700.0  # exp of more is not a double


@dataclass(frozen=True, slots=True)
class Quality:
    """A candidate beside its reference. agreement: share of the positions where both hold the same token for the
    likeliest, 0 to 1. positions: tokens scored."""

    perplexity: float
    reference_perplexity: float
    agreement: float
    positions: int


def text_ids(order: EngineOrder, limit: int) -> list[int]:
    """The first `limit` tokens of the text that comes with Ridgeline, by the model's own tokenizer.

    Raises ConfigError for random weights, and for a model whose tokenizer is missing or cannot hold the text.
    """
    if order.weights is None:
        raise ConfigError(
            f"{order.name}: random weights say nothing about quality, because they predict no text; measure the "
            "quality with --model demo, or with a --model that is on this machine"
        )
    try:
        tokenizer = Tokenizer.load(order.weights)
        tokenizer.check(order.spec())
    except ModelError as error:
        raise ConfigError(f"{order.name} has no tokenizer to read a text with: {error}") from error
    text = (resources.files("ridgeline") / "assets" / TEXT).read_text(encoding="utf-8")
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).tolist()
    if tokenizer.decode(ids) != text:
        raise ConfigError(
            f"{order.name}: its tokenizer gives back another text than it was given, so a perplexity would say "
            "nothing; take a model with a byte-level tokenizer, for example --model demo"
        )
    return ids[:limit]


def read(engine: Engine, ids: Sequence[int], window: int, progress: Progress) -> Reading:
    """Let an idle engine read a text in windows of `window` tokens, each on its own, a window at a time.

    What is kept is two numbers a token. Raises ConfigError for a window that the engine cannot hold (with the token
    that is made after it), and for too little text.
    """
    if window < 2 or len(ids) < 2:
        raise ConfigError(f"a window of {window} of {len(ids)} tokens leaves nothing to predict; take at least 2 of 2")
    starts = range(0, len(ids) - 1, window)  # a last window of one token would score nothing
    losses, best = [], []
    for done, start in enumerate(starts):
        progress("reading a text", done, len(starts))
        piece = list(ids[start : start + window])
        try:
            (made,) = drive(engine, [piece], [1], Sampling(prompt_logprobs=1))
        except BadRequest as error:
            raise ConfigError(f"a window of {window} tokens does not fit: {error}; take a shorter one") from error
        scored = made.scores.prompt
        assert [one.token_id for one in scored] == piece[1:], "a prompt was scored in part"
        losses += [-one.logprob for one in scored]
        best += [one.top[0][0] for one in scored]
    progress("reading a text", len(starts), len(starts))
    return Reading(np.array(losses, np.float32), np.array(best, np.int32))


def compare(reference: Reading, candidate: Reading) -> Quality:
    """Two readings of the same text in the same windows."""
    assert len(reference.best) == len(candidate.best), "readings of different texts"
    return Quality(
        perplexity=candidate.perplexity,
        reference_perplexity=reference.perplexity,
        agreement=float(np.mean(reference.best == candidate.best)),
        positions=len(reference.best),
    )


def judge(reference: Engine, candidate: Engine, ids: Sequence[int], window: int, progress: Progress) -> Quality:
    """Both engines read the text; `read` and `compare` do it apart, for engines that are not there at one time."""
    return compare(read(reference, ids, window, progress), read(candidate, ids, window, progress))


def gap(engine: Engine, prefix_ids: Sequence[int], a: int, b: int) -> float:
    """How far apart an idle engine holds two tokens after a prefix: |log p(a) - log p(b)|, in nats.

    Next to nothing is a tie, which rounding decides. Each is scored as the one token made after the prefix, so
    whatever prefix the engine could continue can be judged.
    """
    first, second = (_logprob(engine, prefix_ids, token) for token in (a, b))
    return abs(first - second)


def _logprob(engine: Engine, prefix_ids: Sequence[int], token: int) -> float:
    (made,) = drive(engine, [prefix_ids], [1], Sampling(logprobs=0, logit_bias=((token, _CERTAIN),)))
    (scored,) = made.scores.output
    assert scored.token_id == token, f"{scored.token_id} instead of {token}"
    return scored.logprob
