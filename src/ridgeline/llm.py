"""LLM: the offline face. A list of prompts in, a list of texts out; the same engine as the server's, without HTTP."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ridgeline.build import EngineOrder, make_engine
from ridgeline.core.checkpoint import read_generation
from ridgeline.core.config import Config, ServerOptions
from ridgeline.core.errors import BadRequest, ConfigError
from ridgeline.core.logprobs import LogprobCollector, TokenLogprob
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


@dataclass(slots=True)
class _Open:
    """A generation on its way."""

    prompt_ids: Tokens
    params: SamplingParams
    stream: TextStream
    scores: LogprobCollector
    token_ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    end: End | None = None


class LLM:
    """A model, ready to generate.

    LLM("demo").generate(["Once upon a time"], SamplingParams(max_tokens=32)) gives one Generation a prompt, in order.
    model: as --model. options: any other option of `ridgeline serve`, by name, for example batching="one".
    terminal: where a person is told which model was chosen and why, and how a download goes; None keeps quiet.
    Raises ConfigError for what cannot work, BadRequest for a prompt that cannot run.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        config: Config | None = None,
        access: Access | None = None,
        terminal: Terminal | None = None,
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
        order = EngineOrder(config, found.name, found.weights)
        self.tokenizer = Tokenizer.load(found.text_folder)
        self.tokenizer.check(order.spec())
        generation = read_generation(found.text_folder)
        for note in filter(None, (found.note, generation.note)):
            if terminal is not None:
                terminal.say(note)
        self.default_params, self._eos_ids = generation.defaults, generation.eos_ids
        self._engine, self.info = make_engine(order, lambda phase, done, total: None)  # noqa: ARG005
        self._keys, self._seed = itertools.count(), config.model.seed

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Generation]:
        """Continue every prompt (text or token ids); all run together as the batching policy allows."""
        many = [prompts] if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)) else list(prompts)
        each = params if isinstance(params, Sequence) else [params or self.default_params] * len(many)
        if len(each) != len(many):
            raise BadRequest(f"params: {len(each)} for {len(many)} prompts", param="params")
        open_: dict[int, _Open] = {}
        try:
            for prompt, how in zip(many, each, strict=True):
                self._submit(prompt, how, open_)  # type: ignore[arg-type]
            while any(o.end is None for o in open_.values()):
                self._step(open_)
        except BaseException:  # an interrupt or a bad prompt leaves nothing running
            for key in open_:
                self._engine.abort(key)
            self._engine.discard()
            raise
        return [_result(o) for o in open_.values()]

    @property
    def counters(self) -> Counters:
        """The scheduler's gauges: running, waiting, blocks in use, preemptions so far."""
        return self._engine.counters()

    def _submit(self, prompt: Prompt, params: SamplingParams, open_: dict[int, _Open]) -> None:
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else np.array(prompt, np.int32)
        if len(ids) and not (ids.min() >= 0 and ids.max() < self.info.vocab):
            raise BadRequest(f"prompt: token ids must be from 0 to {self.info.vocab - 1}", param="prompt")
        params.check_ids(self.info.vocab)
        key = next(self._keys)
        sampling = params.for_device(derive_seed(self._seed, key), self._eos_ids)
        request = NewRequest(key, ids, params.max_tokens, sampling, time.perf_counter_ns())
        self._engine.submit(request)
        scores = LogprobCollector(params.logprobs, params.prompt_logprobs)
        open_[key] = _Open(ids, params, TextStream(self.tokenizer, params.stop), scores)

    def _step(self, open_: dict[int, _Open]) -> None:
        events = self._engine.step()
        if events is None:  # a window is open; everything that will come has come, so nothing but time can close it
            wake_ns = self._engine.wake_ns
            assert wake_ns is not None, "requests are waiting and nothing will ever wake them"
            time.sleep(max(0, wake_ns - time.perf_counter_ns()) / 1e9)
            return
        for scores in events.scores:
            if (o := open_.get(scores.owner)) is not None:
                o.scores.add(scores)
        stopped, start = {end.key for end in events.ends if end.reason == "stop"}, 0
        for key, count in zip(events.keys.tolist(), events.counts.tolist(), strict=True):
            o, new = open_.get(key), events.tokens[start : start + count].tolist()
            start += count
            if o is None or o.end is not None or not new:
                continue
            o.pieces.append(o.stream.push(new[:-1] if key in stopped else new))  # a stop token has no text
            o.token_ids += new
            if o.stream.stopped is not None:
                o.end = self._engine.abort(key)
        for end in events.ends:
            if (o := open_.get(end.key)) is not None and o.end is None:
                o.end = end


def _result(o: _Open) -> Generation:
    assert o.end is not None
    stopped = o.stream.stopped is not None
    text = "".join(o.pieces) + ("" if stopped else o.stream.flush())
    ids = o.token_ids[: o.stream.num_tokens] if stopped else o.token_ids
    reason, prompt_ids = "stop" if stopped else o.end.reason, o.prompt_ids.tolist()
    logprobs = None if o.params.logprobs is None else o.scores.output[: len(ids)]
    prompt_logprobs = None if o.params.prompt_logprobs is None else [None, *o.scores.prompt]
    return Generation(text, ids, prompt_ids, reason, o.end.timings, logprobs, prompt_logprobs)
