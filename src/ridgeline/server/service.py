"""Service: everything an answer needs once the engine is ready. Knows no HTTP and no JSON."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from ridgeline.core.params import SamplingParams, derive_seed
from ridgeline.core.types import Tokens
from ridgeline.engine.channel import Channel, Report
from ridgeline.engine.client import EngineClient, Stream
from ridgeline.engine.messages import EngineInfo
from ridgeline.server.daemon import in_daemon_thread
from ridgeline.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Service:
    """A model being served.

    name: what clients call the model; root: the model's own name. note: why this model was chosen, if that needs
    saying. defaults: sampling values for requests that bring none. seed: requests without a seed get one from it, in
    the order of their arrival. created: Unix seconds.
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
    _asked: Iterator[int] = field(default_factory=itertools.count, init=False, repr=False, compare=False)

    def submit(self, prompt_ids: Tokens, params: SamplingParams) -> Stream:
        """Hand a prompt to the engine. Raises EngineDied."""
        seed = derive_seed(self.seed, next(self._asked)) if params.seed is None else params.seed
        return self.engine.submit(prompt_ids, params.max_tokens, params.for_device(seed, self.eos_ids))


@contextlib.asynccontextmanager
async def running_engine(channel: Channel, report: Report) -> AsyncIterator[tuple[EngineClient, EngineInfo]]:
    """Start the engine behind channel, tell report how far it is, and end it afterwards. Raises Unavailable."""
    client = EngineClient(channel)
    client.start(report)
    try:
        yield client, await client.ready()
    finally:
        await in_daemon_thread(client.close)
