"""Conversation: what was said so far, and what of it still fits a context. Knows no model and no terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ridgeline.core.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Turn:
    """What a person said and what the model answered, both perhaps empty."""

    said: str
    answer: str = ""


@dataclass(slots=True)
class Conversation:
    """system: what stands before all turns and is never cut. left_out: turns that were cut."""

    system: str = ""
    turns: list[Turn] = field(default_factory=list)
    left_out: int = 0

    def messages(self) -> list[dict[str, str]]:
        """For a chat template or a chat route; the last turn is the one to be answered."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            messages += [{"role": "user", "content": turn.said}, {"role": "assistant", "content": turn.answer}]
        return messages[:-1] if self.turns else messages

    def text(self) -> str:
        """As one text that goes on: what is said begins a new line, an answer continues it."""
        text = self.system
        for turn in self.turns:
            text += ("\n" if text and turn.said else "") + turn.said + turn.answer
        return text

    def cut(self) -> bool:
        """Leave the oldest turn out. False, and nothing happens, where the last one stands alone."""
        if len(self.turns) < 2:
            return False
        del self.turns[0]
        self.left_out += 1
        return True

    def reset(self) -> None:
        """Forget all turns, not the system's text."""
        self.turns.clear()
        self.left_out = 0


def least_answer(context: int, max_tokens: int) -> int:
    """Tokens that are kept free for an answer: all that it may have, but a quarter of the context at most, as a larger
    share would leave a small model without memory."""
    return min(max_tokens, context // 4)


def fit(
    conversation: Conversation, encode: Callable[[Conversation], list[int]], context: int, max_tokens: int
) -> list[int]:
    """The prompt's token ids, after as many of the oldest turns were cut as it takes to have room for an answer.

    encode: the whole conversation as token ids. context: tokens of prompt and answer together. Raises BadRequest where
    the last turn alone leaves no room for a single token.
    """
    most = context - least_answer(context, max_tokens)
    while len(ids := encode(conversation)) > most and conversation.cut():
        pass
    if len(ids) >= context:
        raise too_long(f"{len(ids)} tokens, but the model takes at most {context}, the answer included")
    return ids


def too_long(why: str) -> BadRequest:
    return BadRequest(f"this does not fit even without the earlier turns ({why}); say less", param="messages")
