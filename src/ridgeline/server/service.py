"""Service: everything an answer needs once the engine is ready. Knows no HTTP and no JSON."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace

from ridgeline.core.flight import Reason, Recording
from ridgeline.core.params import SamplingParams, derive_seed
from ridgeline.core.types import Tokens
from ridgeline.engine.blackbox import EVERY_STEP, BlackBox
from ridgeline.engine.channel import Channel, Report
from ridgeline.engine.client import EngineClient, Stream
from ridgeline.engine.messages import EngineInfo
from ridgeline.engine.recorder import NoRecorder
from ridgeline.server.daemon import in_daemon_thread
from ridgeline.text.chat import ChatTemplate
from ridgeline.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Service:
    """A model being served.

    name: what clients call the model; root: the model's own name. note: why this model was chosen, if that needs
    saying. defaults: sampling values for requests that bring none. seed: requests without a seed get one from it, in
    the order of their arrival; asked counts them, also over the engines that follow one that died. created: Unix
    seconds. chat: how the model knows a conversation, None if it knows none.
    lenient: fields that nobody knows are named in a header instead of refused. box: what the engine did last.
    """

    engine: EngineClient
    info: EngineInfo
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...]
    defaults: SamplingParams
    name: str
    root: str
    created: int
    seed: int = 0
    note: str | None = None
    chat: ChatTemplate | None = None
    lenient: bool = False
    box: BlackBox = field(default_factory=lambda: BlackBox(NoRecorder()), repr=False, compare=False)
    asked: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)

    def seeded(self, params: SamplingParams) -> SamplingParams:
        """The same with a seed: the request's own, otherwise the next one of this server."""
        return params if params.seed is not None else replace(params, seed=derive_seed(self.seed, next(self.asked)))

    def recording(
        self, steps: int = EVERY_STEP, reason: Reason = "asked", message: str | None = None
    ) -> Recording | None:
        """The newest steps of this engine, also when it is dead; None where nothing is recorded. It takes milliseconds,
        and waits for nobody."""
        return self.box.recording(self.info, self.name, steps, reason, message)

    def submit(self, prompt_ids: Tokens, params: SamplingParams, cache_salt: str = "") -> Stream:
        """Hand a prompt to the engine; params have a seed. Raises EngineDied, and BadRequest for too many stop ids."""
        assert params.seed is not None
        sampling = params.for_device(params.seed, self.eos_ids)
        return self.engine.submit(prompt_ids, params.max_tokens, sampling, cache_salt)


@contextlib.asynccontextmanager
async def running_engine(channel: Channel, report: Report) -> AsyncIterator[tuple[EngineClient, EngineInfo]]:
    """Start the engine behind channel, tell report how far it is, and end it afterwards. Raises Unavailable."""
    client = EngineClient(channel)
    client.start(report)
    try:
        yield client, await client.ready()
    finally:
        await in_daemon_thread(client.close)
