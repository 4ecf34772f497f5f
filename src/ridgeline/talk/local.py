"""Local: a model in this process answers. Knows the offline face and a chat template; knows no terminal."""

from __future__ import annotations

import signal
from contextlib import closing
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from ridgeline.core.params import SamplingParams
from ridgeline.talk.conversation import Conversation, fit
from ridgeline.talk.partner import Say
from ridgeline.text.chat import ChatTemplate

if TYPE_CHECKING:
    from ridgeline.llm import LLM


class Local:
    """template: None continues the text. params: how to generate; fewer tokens where the context has no more room."""

    def __init__(self, llm: LLM, template: ChatTemplate | None, params: SamplingParams) -> None:
        self._llm, self._template, self._params = llm, template, params

    @property
    def continues(self) -> bool:
        return self._template is None

    def answer(self, conversation: Conversation, say: Say) -> str | None:
        reason: str | None = None
        context = self._llm.info.max_model_len
        ids = fit(conversation, self._encode, context, self._params.max_tokens)
        params = replace(self._params, max_tokens=min(self._params.max_tokens, context - len(ids)))
        with _Interrupt() as interrupt, closing(self._llm.stream([ids], params)) as pieces:
            for piece in pieces:
                say(piece.text)
                reason = piece.end.finish_reason if piece.end is not None else None
                if interrupt.asked:
                    break
        if interrupt.asked:
            raise KeyboardInterrupt
        return reason

    def _encode(self, conversation: Conversation) -> list[int]:
        if self._template is None:
            ids = self._llm.tokenizer.encode(conversation.text())
        else:
            text = self._template.render(conversation.messages())
            ids = self._llm.tokenizer.encode(text, add_special_tokens=False)
        return list(ids.tolist())


class _Interrupt:
    """Ctrl-C while the engine works: the first waits for the end of a step, so that the engine can be used again; the
    second does not wait. asked: it came."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise somebody decided on it
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
