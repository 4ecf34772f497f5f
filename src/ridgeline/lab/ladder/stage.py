"""Stage: the rungs of a ladder as engines in this process, one copy of the weights for each way to store them.

Finds out which rungs this machine and this version can do. Measures nothing but the probe that a load is sized by.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ridgeline.build import EngineOrder, Loaded, load, make_engine
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.lab.ladder.agreement import TIES, Reference
from ridgeline.lab.ladder.ladder import Guard, Place
from ridgeline.lab.ladder.rungs import PEER, SIXTEEN_BITS, Rung, base, changed
from ridgeline.lab.ladder.seams import Seams
from ridgeline.lab.ladder.station import EngineStation, PeerStation
from ridgeline.lab.ladder.work import Request, Sizes, Speed
from ridgeline.lab.rig import Workbench

_PROBE_TOKENS, _PROBE_STEPS, _PROBE_TIMES = 24, 12, 3
_GUARD_PROMPT, _GUARD_NS, _GUARD_MOST = 16, 30e6, 32
GUARD_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Step:
    """A rung with all switches below it. place: ready to serve; None where it cannot be climbed, which skipped says."""

    rung: Rung
    config: Config
    loaded: Loaded
    place: Place | None
    skipped: str | None

    @property
    def dtype(self) -> str:
        return str(self.loaded.device.dtype).removeprefix("torch.")


class Stage:
    """order: the model. Everything is in float32 up to the rung of 16-bit weights, unless a format was asked for."""

    def __init__(self, order: EngineOrder, seams: Seams) -> None:
        self.base = base(order.config)
        self.asked_dtype = order.config.model.dtype
        self.order = dataclasses.replace(order, config=self.base)
        self.loaded = load(self.order, _quiet)
        self._seams = seams

    @property
    def vocab(self) -> int:
        return self.order.spec().vocab

    @property
    def positions(self) -> int:
        return self.base.model.max_model_len or self.order.spec().max_positions

    def probe(self) -> Speed:
        """How fast one request is, in a fraction of a second to a few; the best of what is seen, because whatever else
        the machine does only adds."""
        bench = Workbench(self.order, self.loaded)
        size = min(_PROBE_TOKENS, self.positions // 2)
        rig = bench.rig(1, size, _PROBE_STEPS)
        rig.prefill(size)
        position_ns = min(rig.prefill(size) for _ in range(_PROBE_TIMES)) / size
        decode_ns: list[int] = []
        with rig.decoding() as one:
            for _ in range(_PROBE_STEPS - 1):
                begun = time.perf_counter_ns()
                one()
                decode_ns.append(time.perf_counter_ns() - begun)
        return Speed(min(decode_ns), position_ns)

    @property
    def captures(self) -> bool:
        """Whether steps are captured on this device: then the whole ladder is."""
        return self.loaded.device.captures

    def alone_ns(self, sizes: Sizes) -> int:
        """What one request of the mean lengths takes with a KV cache, one at a time."""
        station = self._naive(sizes)
        request = Request((0,) * sizes.prompt_mean, sizes.new_mean, 0)
        return min(station.serve([request]).measure.makespan_ns for _ in range(_PROBE_TIMES))

    def guard(self, sizes: Sizes, speed: Speed) -> Guard:
        """A prompt and a few tokens on an engine of its own; the shortest of a few times, so that what else the machine
        does for a moment is not taken for its pace."""
        station = self._naive(sizes)
        new = max(1, min(_GUARD_MOST, sizes.new[1], round(_GUARD_NS / speed.decode_ns)))
        request = Request((0,) * min(_GUARD_PROMPT, sizes.prompt[1]), new, 0)
        return lambda: min(station.serve([request]).measure.makespan_ns for _ in range(GUARD_REPEATS))

    def steps(self, rungs: Sequence[Rung], wanted: Sequence[str], sizes: Sizes, window_ms: float) -> Iterator[Step]:
        """The wanted rungs, one after the other, each with the switches of all below it that can be had, wanted or
        not."""
        standing = Step(Rung("base", ""), self.base, self.loaded, None, None)
        for rung in rungs:
            step = self._step(standing, rung, sizes, window_ms, build=rung.name in wanted)
            if step.skipped is None:
                standing = step
            if rung.name in wanted:
                yield step

    def _step(self, below: Step, rung: Rung, sizes: Sizes, window_ms: float, *, build: bool) -> Step:
        reason = rung.skipped or self._refused(rung)
        config, loaded, place = below.config, below.loaded, None
        try:
            if reason is None:
                config = changed(config, rung.change)
                loaded = self._loaded(rung, config, below)
                fitted = changed(config, {"max_model_len": sizes.longest, "batch_window_ms": window_ms})
                place = self._place(rung, fitted, loaded) if build else None
        except (ConfigError, ImportError, RuntimeError) as error:  # RuntimeError: what torch and compilers raise
            reason = str(error).strip().splitlines()[0]
        return Step(rung, config, loaded, place, reason)

    def _place(self, rung: Rung, config: Config, loaded: Loaded) -> Place:
        if rung.name == PEER:
            order = dataclasses.replace(self.order, config=config)
            return Place(PEER, PeerStation(self._seams.peer(order, loaded)), rung.alone)
        return Place(rung.name, self.engine(config, loaded), rung.alone)

    def reference(self, step: Step) -> Reference:
        """The tokens of a step are what those above it must make."""
        assert step.place is not None
        assert isinstance(step.place.station, EngineStation)
        engine = step.place.station.engine
        return Reference(lambda prefix, a, b: self._seams.gap(engine, prefix, a, b), TIES[step.dtype], {})

    def engine(self, config: Config, loaded: Loaded) -> EngineStation:
        """Raises ConfigError."""
        order = dataclasses.replace(self.order, config=config)
        engine, info = make_engine(order, _quiet, loaded)
        while engine.idle():  # no round should pay for graphs that are captured where they are first missed
            pass
        return EngineStation(engine, order.spec(), Workbench(order, loaded).formats, info.block_size)

    def _naive(self, sizes: Sizes) -> EngineStation:
        """One request at a time, with a KV cache."""
        return self.engine(changed(self.base, {"kv_cache": "paged", "max_model_len": sizes.longest}), self.loaded)

    def _refused(self, rung: Rung) -> str | None:
        """Why a rung cannot be climbed here, as far as that is known before it is tried."""
        if rung.name == PEER:
            return self._seams.peer_missing()
        if rung.name != SIXTEEN_BITS:
            return None
        if self.asked_dtype not in ("auto", "float32"):
            return f"--dtype {self.asked_dtype} was asked for, so the whole ladder runs in it"
        if not self.loaded.device.native_bfloat16:
            return "this device does not compute bfloat16 itself; widening every weight would be measured"
        return None

    def _loaded(self, rung: Rung, config: Config, below: Step) -> Loaded:
        """Weights as the configuration stores them: those of the rung below, where it says nothing new of them."""
        if not rung.lossy or config.model == below.config.model:
            return below.loaded
        return load(dataclasses.replace(self.order, config=config), _quiet)


def _quiet(phase: str, done: int, total: int) -> None:
    """The ladder's own bar says what goes on."""
