"""Seams: what the ladder takes from elsewhere, so that it can be climbed without. Knows signatures only."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ridgeline.device.energy import meter_for
from ridgeline.lab.counters import perf
from ridgeline.lab.counters.attached import Counters
from ridgeline.lab.ladder.station import Generates

if TYPE_CHECKING:
    from ridgeline.build import EngineOrder, Loaded
    from ridgeline.device.base import Device
    from ridgeline.engine.engine import Engine

Progress = Callable[[str, int, int], None]
"""Called with (what goes on, done, of how many)."""


class Quality(Protocol):
    """agreement: share of positions, 0 to 1, at which both hold the same token for the likeliest."""

    @property
    def perplexity(self) -> float: ...

    @property
    def reference_perplexity(self) -> float: ...

    @property
    def agreement(self) -> float: ...

    @property
    def positions(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Seams:
    """peer_missing: why there is no transformers here, or None. peer: its generate on the same weights. judge: an
    engine's predictions of a text against the exact engine's. text_ids: the first tokens of that text; raises
    ConfigError. gap: how far apart an engine holds two tokens after a prefix, in nats. counters: what the hardware
    counts while this process works on a device."""

    peer_missing: Callable[[], str | None]
    peer: Callable[[EngineOrder, Loaded], Generates]
    judge: Callable[[Engine, Engine, Sequence[int], int, Progress], Quality]
    text_ids: Callable[[EngineOrder, int], list[int]]
    gap: Callable[[Engine, Sequence[int], int, int], float]
    counters: Callable[[Device], Counters]

    @staticmethod
    def found(environment: Mapping[str, str]) -> Seams:
        """environment: where perf is looked for."""
        peer: Any = importlib.import_module("ridgeline.lab.ladder.peer")
        quality: Any = importlib.import_module("ridgeline.lab.ladder.quality")

        def counters(device: Device) -> Counters:
            return Counters(perf.offer(environment), meter_for(device.torch_device))

        return Seams(peer.available, peer.Generate, quality.judge, quality.text_ids, quality.gap, counters)
