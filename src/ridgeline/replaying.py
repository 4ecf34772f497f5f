"""replaying: which steps are played again instead of being launched anew, from what was asked for and what fits. A part
of build, and like it imports torch only when it builds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.menu import chosen

if TYPE_CHECKING:
    from ridgeline.attention.base import AnyAttention
    from ridgeline.device.base import Device
    from ridgeline.runner.graphs import Replays


def choose_graphs(
    config: Config, device: Device, attention: AnyAttention, cache: Path | None
) -> Callable[..., Replays]:
    """cache: where compiled kernels are kept. Raises ConfigError."""
    name = graphs_choice(config, device, attention)
    graphs: Callable[..., Replays] = chosen("graphs", name)
    return _recorded(graphs, attention, cache) if name == "recorded" else graphs


def graphs_choice(config: Config, device: Device, attention: AnyAttention) -> str:
    """A name in MENU."""
    from ridgeline.attention.base import SteadyAttention
    from ridgeline.attention.native import Native

    options = config.batching
    if config.model.determinism != "off":
        return "eager"  # when a step is captured depends on the time, and a replay is padded to its size
    if options.graphs != "auto":
        return options.graphs
    keeps: bool = chosen("kv_cache", options.kv_cache).keeps
    if keeps and isinstance(attention, Native) and options.packing == "ragged":
        return "recorded"
    pays = isinstance(attention, SteadyAttention) and attention.reads_contexts and keeps and device.captures
    return "graph" if pays else "eager"


def _recorded(graphs: Callable[..., Replays], attention: AnyAttention, cache: Path | None) -> Callable[..., Replays]:
    from ridgeline.attention.native import Native
    from ridgeline.device.jit import CannotBuild
    from ridgeline.ops import steps

    if not isinstance(attention, Native):
        raise ConfigError("--graphs recorded: native calls are played, and this attention makes none; leave it out")
    try:
        return partial(graphs, steps.Native(steps.build(cache)))
    except CannotBuild as error:
        raise ConfigError(f"--graphs recorded: native code plays the calls, and {error}; or take eager") from None
