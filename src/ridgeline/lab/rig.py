"""Rig: an engine held in a chosen state, so that one kind of step can be run as often as a measurement wants it.

The real engine with its scheduler, without text and HTTP: `decode` runs steps in which a fixed number of sequences make
a token each, `prefill` runs one whole prompt. Knows no timer's meaning and no counter.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ridgeline.build import EngineOrder, Loaded, chosen, load, make_engine
from ridgeline.core.config import Config
from ridgeline.core.cost import Formats, Row, StepShape
from ridgeline.core.errors import ConfigError
from ridgeline.core.spec import ModelSpec
from ridgeline.core.types import NewRequest, Sampling, StepRecord
from ridgeline.engine.channel import Report
from ridgeline.engine.engine import NullSink
from ridgeline.engine.messages import EngineInfo
from ridgeline.runner.runner import Runner

if TYPE_CHECKING:
    from ridgeline.device.base import Device
    from ridgeline.engine.engine import Engine

# The scheduler lets a newcomer in only if half a block is left for everybody who runs, so a seat for every second one
# stays empty and leaves its blocks.
_SEATS_A_SPARE = 2
BITS = {"float32": 32, "bfloat16": 16, "float16": 16}


@dataclass(frozen=True, slots=True)
class Workbench:
    """A model on its device, loaded once for all rigs of a measurement."""

    order: EngineOrder
    loaded: Loaded

    @staticmethod
    def open(order: EngineOrder, report: Report) -> Workbench:
        """Raises ConfigError."""
        return Workbench(order, load(order, report))

    @property
    def spec(self) -> ModelSpec:
        return self.loaded.model.spec

    @property
    def formats(self) -> Formats:
        formats = formats_of(self.loaded.device, self.order.config.batching.kv_dtype)
        scheme = chosen("quantize", self.order.config.model.quantize)
        return dataclasses.replace(formats, weight_bits=scheme.bits(self.loaded.device))

    def rig(self, batch: int, context: int, steps: int, *, seed: int = 0) -> Rig:
        """For `batch` sequences whose context is `context` tokens in the middle of `steps` decode steps. Raises
        ConfigError where the model has no room for them."""
        longest = self.longest(context, steps)
        # All prompts in one step, so that no sequence is ahead of another; random ones have no prefix to find.
        config = _with(
            self.order.config,
            batching={"batching": "continuous", "prefix_cache": False, "chunked_prefill": False},
            limits={"max_num_seqs": batch + -(-batch // _SEATS_A_SPARE), "max_num_batched_tokens": batch * longest},
            model={"max_model_len": longest},
        )
        engine, info = make_engine(dataclasses.replace(self.order, config=config), lambda *_: None, self.loaded)
        if info.num_blocks < batch * -(-longest // info.block_size) + batch // _SEATS_A_SPARE:
            raise ConfigError(
                f"a batch of {batch} at context {context} has no room ({info.memory_plan}); take a smaller one"
            )
        return Rig(engine, info, self.spec, batch, context, steps, seed)

    def longest(self, context: int, steps: int, *, option: str = "--context") -> int:
        """Tokens that a sequence of such a rig grows to. Raises ConfigError, naming the option that says how long it
        is, where the model has no room for it."""
        if context <= steps // 2:
            raise ConfigError(
                f"{option} {context}: {steps} steps around it would begin before the first token; take a larger "
                "one or fewer steps"
            )
        longest = context + -(-steps // 2) + 1
        if longest > self.spec.max_positions:
            raise ConfigError(
                f"{option} {context}: with {steps} steps around it a sequence grows to {longest} tokens, and this "
                f"model has {self.spec.max_positions} positions; take a smaller one or fewer steps"
            )
        return longest


class Rig(NullSink):
    """A step is timed by whoever runs it: `step` returns when the device is done and the results are on the host."""

    def __init__(
        self, engine: Engine, info: EngineInfo, spec: ModelSpec, batch: int, context: int, steps: int, seed: int
    ) -> None:
        self.engine, self.info, self.spec, self.batch, self.context, self.steps = (
            engine, info, spec, batch, context, steps,
        )  # fmt: skip
        self._rng, self._keys = np.random.default_rng(seed), itertools.count()
        self._records: list[StepRecord] = []
        engine.sink = self

    @property
    def runner(self) -> Runner:
        runner = self.engine.runner
        assert isinstance(runner, Runner), "a rig's engine is the real one"
        return runner

    @property
    def last(self) -> StepRecord:
        """The latest step that computed anything."""
        return self._records[-1]

    def step(self, record: StepRecord) -> None:
        """The engine's sink."""
        self._records.append(record)

    @contextmanager
    def decoding(self) -> Iterator[Callable[[], None]]:
        """Fill the cache, then hand over a function that runs one decode step; good for `steps` calls."""
        while self.engine.idle():  # no step that is timed should pay for what later ones need
            pass
        self._submit(self.batch, self.context - self.steps // 2, self.steps + 1)
        try:
            self._one()
            yield self._one
        finally:
            self._clear()

    def prefill(self, tokens: int, sequences: int = 1) -> int:
        """Compute whole prompts once, from submission to their first tokens. Returns nanoseconds."""
        run = self.prompts(tokens, sequences)
        begun = time.perf_counter_ns()
        run()
        return time.perf_counter_ns() - begun

    def prompts(self, tokens: int, sequences: int = 1) -> Callable[[], None]:
        """Submit prompts of so many tokens; what is returned computes them all in one step, to their first tokens."""
        self._clear()
        self._submit(sequences, tokens, 1)
        return self._all

    @property
    def shape(self) -> StepShape:
        """Of a decode step in the middle of the run."""
        return StepShape((Row(1, self.context),) * self.batch, wanted=self.batch)

    def _one(self) -> None:
        self.engine.step()
        assert self.last.rows == self.batch, "not everybody was let in, or a sequence ended before its time"

    def _all(self) -> None:
        while self.engine.step() is not None:
            pass

    def _submit(self, count: int, tokens: int, new: int) -> None:
        for _ in range(count):
            prompt = self._rng.integers(0, self.spec.vocab, tokens).astype(np.int32)
            sampling = Sampling(temperature=0.0)
            self.engine.submit(NewRequest(next(self._keys), prompt, new, sampling, time.perf_counter_ns()))

    def _clear(self) -> None:
        self.engine.discard()
        self._records.clear()


def formats_of(device: Device, kv_dtype: str = "auto") -> Formats:
    """Weights in the device's own format, activations in the one it computes in, the cache in what was chosen."""
    kept = chosen("kv_dtype", kv_dtype)
    weights, compute = (str(kind).removeprefix("torch.") for kind in (device.dtype, device.compute))
    kv_bits = 8 * kept.stored(device.dtype).itemsize
    return Formats(BITS[weights], kv_bits, BITS[compute], compute, kept.scale_bits)


def _with(config: Config, **parts: dict[str, object]) -> Config:
    """The configuration with some fields changed."""
    changed = {part: dataclasses.replace(getattr(config, part), **values) for part, values in parts.items()}
    return dataclasses.replace(config, **changed)
