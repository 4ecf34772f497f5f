"""Log-probabilities a token at a time, from the pieces in which they come. Knows no text, no launch and no request."""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline.core.types import Scores


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its log-probability, and (token, log-probability) of the likeliest tokens there, the likeliest first.

    Where the token itself is among the likeliest, it stands there with the same number.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class LogprobCollector:
    """Takes one request's Scores in the order in which they come. logprobs, prompt_logprobs: what the request asked.

    output: of the tokens made so far. prompt: of the prompt's tokens from the second on, because nothing comes before
    the first; a part that is scored again after a preemption changes nothing.
    """

    def __init__(self, logprobs: int | None, prompt_logprobs: int | None) -> None:
        self._most, self._most_prompt = logprobs or 0, prompt_logprobs or 0
        self._next: int | None = None
        self.output: list[TokenLogprob] = []
        self.prompt: list[TokenLogprob] = []

    def add(self, scores: Scores) -> None:
        if scores.prompt:
            known = len(self.prompt) + 1 - scores.first
            assert known >= 0, f"the prompt's tokens before {scores.first} have no log-probabilities"
            self.prompt += _by_token(scores, self._most_prompt)[known:]
            return
        assert self._next in (None, scores.first), f"{scores.first}: {self._next} comes next"
        self._next = scores.first + len(scores.tokens)
        self.output += _by_token(scores, self._most)


def _by_token(scores: Scores, most: int) -> list[TokenLogprob]:
    ids, values = scores.top_ids[:, :most].tolist(), scores.top_values[:, :most].tolist()
    return [
        TokenLogprob(token, value, tuple(zip(top, odds, strict=True)))
        for token, value, top, odds in zip(scores.tokens.tolist(), scores.values.tolist(), ids, values, strict=True)
    ]
