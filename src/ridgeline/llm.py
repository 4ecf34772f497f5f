"""LLM: the offline face. A list of prompts in, a list of texts out; the same engine as the server's, without HTTP."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.build import EngineOrder, make_engine
from ridgeline.core.checkpoint import read_generation
from ridgeline.core.config import Config
from ridgeline.core.errors import BadRequest, ConfigError
from ridgeline.core.logprobs import LogprobCollector, TokenLogprob
from ridgeline.core.options import ServerOptions
from ridgeline.core.params import SamplingParams, derive_seed
from ridgeline.core.types import End, FinishReason, NewRequest, Timings, Tokens
from ridgeline.engine.messages import Counters
from ridgeline.hub import Access, choose, ignore_progress
from ridgeline.terminal import Terminal
from ridgeline.text.stream import TextStream
from ridgeline.text.tokenizer import Tokenizer

Prompt = str | Sequence[int]


@dataclass(frozen=True, slots=True)
class Generation:
    """One prompt's continuation. finish_reason: `stop` (the model's end, a stop token or a stop string) or `length`.

    A stop token is the last of token_ids, and its text is not in text. logprobs: of each of token_ids, prompt_logprobs:
    of each of prompt_ids, the first None because nothing comes before it; None where the parameters do not ask.
    """

    text: str
    token_ids: list[int]
    prompt_ids: list[int]
    finish_reason: FinishReason
    timings: Timings
    logprobs: list[TokenLogprob] | None = None
    prompt_logprobs: list[TokenLogprob | None] | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """News of one prompt. index: which one. text, token_ids: what is new, both perhaps empty, as half a character or
    what may become a stop string is held back. end: the whole generation, with the last piece."""

    index: int
    text: str
    token_ids: list[int]
    end: Generation | None


@dataclass(slots=True)
class _Open:
    """A generation on its way."""

    index: int
    prompt_ids: Tokens
    params: SamplingParams
    stream: TextStream
    scores: LogprobCollector
    token_ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def push(self, new: list[int], *, stops: bool) -> tuple[str, list[int]]:
        """The text that new tokens make certain, and those of them that count. stops: the last is a stop token."""
        text = self.stream.push(new[:-1] if stops else new)  # a stop token has no text
        ids = new if self.stream.stopped is None else new[: self.stream.num_tokens - len(self.token_ids)]
        self.texts.append(text)
        self.token_ids += ids
        return text, ids

    def finish(self, end: End) -> Generation:
        return Generation(
            text="".join(self.texts),
            token_ids=self.token_ids,
            prompt_ids=self.prompt_ids.tolist(),
            finish_reason=end.reason if self.stream.stopped is None else "stop",
            timings=end.timings,
            logprobs=None if self.params.logprobs is None else self.scores.output[: len(self.token_ids)],
            prompt_logprobs=None if self.params.prompt_logprobs is None else [None, *self.scores.prompt],
        )


class LLM:
    """A model, ready to generate.

    LLM("demo").generate(["Once upon a time"], SamplingParams(max_tokens=32)) gives one Generation a prompt, in order.
    model: as --model. options: any other option of `ridgeline serve`, by name, for example batching="one".
    terminal: where a person is told which model was chosen and why, and how a download goes; None keeps quiet.
    cache: Ridgeline's folder for what it keeps between runs; None: kernels that an option needs are compiled each time.
    Raises ConfigError for what cannot work, BadRequest for a prompt that cannot run.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        config: Config | None = None,
        access: Access | None = None,
        terminal: Terminal | None = None,
        cache: Path | None = None,
        **options: Any,
    ) -> None:
        if config is not None and (model is not None or options):
            raise ConfigError("LLM: give a config, or a model and options, not both")
        for name in options:
            if name in ServerOptions.__dataclass_fields__:
                raise ConfigError(f"LLM: {name} is an option of `ridgeline serve`; there is no server here")
        config = config or Config.of(model=model, **options)
        try:
            progress = ignore_progress if terminal is None else terminal.progress
            found = choose(config.model, access or Access(), progress)
        finally:
            if terminal is not None:
                terminal.done()
        order = EngineOrder(config, found.name, found.weights, cache=cache)
        self.folder = found.text_folder
        self.tokenizer = Tokenizer.load(found.text_folder)
        self.tokenizer.check(order.spec())
        generation = read_generation(found.text_folder)
        for note in filter(None, (found.note, generation.note)):
            if terminal is not None:
                terminal.say(note)
        self.default_params, self._eos_ids = generation.defaults, generation.eos_ids
        self._engine, self.info = make_engine(order, lambda phase, done, total: None)  # noqa: ARG005
        self._keys, self._seed = itertools.count(), config.model.seed
        self._open: dict[int, _Open] = {}

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Generation]:
        """Continue every prompt (text or token ids); all run together as the batching policy allows."""
        ends = {piece.index: piece.end for piece in self.stream(prompts, params) if piece.end is not None}
        return [ends[index] for index in sorted(ends)]

    def stream(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> Generator[Piece, None, None]:
        """As generate, piece by piece as it is made, the prompts' pieces mixed.

        Closing the iterator, or an interrupt, ends what still runs. One stream at a time: another raises BadRequest.
        """
        many = [prompts] if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)) else list(prompts)
        each = params if isinstance(params, Sequence) else [params or self.default_params] * len(many)
        if len(each) != len(many):
            raise BadRequest(f"params: {len(each)} for {len(many)} prompts", param="params")
        if self._open:
            raise BadRequest("another stream of this LLM has not ended; read it to its end or close it")
        try:
            for index, (prompt, how) in enumerate(zip(many, each, strict=True)):
                self._submit(index, prompt, how)  # type: ignore[arg-type]
            while self._open:
                yield from self._step()
        finally:
            try:  # an interrupt, a reader that left or a bad prompt leaves nothing running
                self._engine.discard()
            finally:
                self._open.clear()

    @property
    def counters(self) -> Counters:
        """The scheduler's gauges: running, waiting, blocks in use, preemptions so far."""
        return self._engine.counters()

    def _submit(self, index: int, prompt: Prompt, params: SamplingParams) -> None:
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else self._checked(prompt)
        params.check_ids(self.info.vocab)
        key = next(self._keys)
        sampling = params.for_device(derive_seed(self._seed, key), self._eos_ids)
        request = NewRequest(key, ids, params.max_tokens, sampling, time.perf_counter_ns())
        self._engine.submit(request)
        scores = LogprobCollector(params.logprobs, params.prompt_logprobs)
        self._open[key] = _Open(index, ids, params, TextStream(self.tokenizer, params.stop), scores)

    def _checked(self, prompt: Sequence[int]) -> Tokens:
        if len(prompt) and not (min(prompt) >= 0 and max(prompt) < self.info.vocab):  # before they must fit 32 bits
            raise BadRequest(f"prompt: token ids must be from 0 to {self.info.vocab - 1}", param="prompt")
        return np.array(prompt, np.int32)

    def _step(self) -> list[Piece]:
        events = self._engine.step()
        if events is None:  # a window is open; everything that will come has come, so nothing but time can close it
            wake_ns = self._engine.wake_ns
            assert wake_ns is not None, "requests are waiting and nothing will ever wake them"
            time.sleep(max(0, wake_ns - time.perf_counter_ns()) / 1e9)
            return []
        for scores in events.scores:
            if (o := self._open.get(scores.owner)) is not None:
                o.scores.add(scores)
        pieces, start = [], 0
        ends = {end.key: end for end in events.ends}
        for key, count in zip(events.keys.tolist(), events.counts.tolist(), strict=True):
            new, end = events.tokens[start : start + count].tolist(), ends.get(key)
            start += count
            if key in self._open and (new or end is not None):
                pieces.append(self._piece(key, new, end))
        return pieces

    def _piece(self, key: int, new: list[int], end: End | None) -> Piece:
        o = self._open[key]
        text, ids = o.push(new, stops=end is not None and end.reason == "stop")
        if end is None and o.stream.stopped is not None:
            end = self._engine.abort(key)
        if end is None:
            return Piece(o.index, text, ids, None)
        del self._open[key]
        rest = o.stream.flush()
        o.texts.append(rest)
        return Piece(o.index, text + rest, ids, o.finish(end))
