"""Choice: one generation as it comes, tokens to text. Knows the engine's stream; knows no JSON and no HTTP."""

from __future__ import annotations

from collections.abc import Callable

from ridgeline.core.logprobs import LogprobCollector
from ridgeline.core.params import SamplingParams
from ridgeline.core.types import End
from ridgeline.engine.client import Stream
from ridgeline.engine.course import WAITING
from ridgeline.server.openai import Prompt
from ridgeline.server.words import Offsets, spelled
from ridgeline.text.stream import StopStrings, TextStream
from ridgeline.text.tokenizer import Tokenizer


class Choice:
    """One generation for one prompt. ids: the tokens that count; scores: theirs, and more; end: set with the last.

    began: called once, with the first news. makes: False if no token shall be made: the engine always makes one, which
    is dropped.
    """

    def __init__(
        self,
        prompt: Prompt,
        params: SamplingParams,
        stream: Stream,
        tokenizer: Tokenizer,
        stops: StopStrings,
        began: Callable[[], None],
        *,
        makes: bool,
    ) -> None:
        self.prompt, self.stream = prompt, stream
        self._began: Callable[[], None] | None = began
        self.ids: list[int] = []
        self.end: End | None = None
        self.text = ""
        self.scores = LogprobCollector(params.logprobs, params.prompt_logprobs)
        self.offsets = Offsets(tokenizer)
        self._tokenizer, self._makes, self._opened = tokenizer, makes, False
        self._stream_text = TextStream(tokenizer, stops)

    async def advance(self) -> tuple[str, list[int]]:
        """What is new: text that no later token can change, and token ids. Raises EngineDied and BadRequest.

        A stop string ends the request in the engine; tokens that were made meanwhile are dropped. The End is waited for
        even then, as it has the timings. A token that ends the text counts, and is not part of it.
        """
        tokens, end, scores = await self.stream.receive()
        if self._began is not None:
            self._began()
            self._began = None
        for piece in scores:
            self.scores.add(piece)
        self.end = end
        if not self._makes:
            return "", []
        text, ids, known = "", list[int](), self._stream_text
        if known.stopped is None:
            closed = end is not None and end.reason == "stop" and bool(tokens)
            text = known.push(tokens[:-1] if closed else tokens)
            ids = tokens if closed and known.stopped is None else tokens[: known.num_tokens - len(self.ids)]
            self.ids += ids
            if known.stopped is not None:
                self.stream.abort()
        if end is not None:
            text += known.flush()
        return text, ids

    async def run(self) -> None:
        """To the end; text is the whole of it then."""
        parts = []
        while self.end is None:
            parts.append((await self.advance())[0])
        self.text = "".join(parts)
        self.stream.course.turn(WAITING)  # for the others

    @property
    def finish_reason(self) -> str:
        assert self.end is not None
        if not self._makes:
            return "length"
        return "stop" if self._stream_text.stopped is not None else self.end.reason

    @property
    def mean_logprob(self) -> float:
        """Of the tokens that count; needs scores."""
        counted = self.scores.output[: len(self.ids)]
        return sum(score.logprob for score in counted) / len(counted) if counted else 0.0

    def prompt_text(self) -> str:
        source = self.prompt.source
        return source if isinstance(source, str) else spelled(self._tokenizer, self.prompt.ids.tolist())

    def opens(self) -> bool:
        """Whether this is the first time that it is asked."""
        opened, self._opened = self._opened, True
        return not opened
