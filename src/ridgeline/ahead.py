"""Ahead: what an engine's process does before anybody knows which model it is to serve. Imports torch only there."""

from __future__ import annotations

from importlib import import_module

from ridgeline.core.config import Config
from ridgeline.engine.process import EngineProcess
from ridgeline.menu import MENU


def engine_process(config: Config) -> EngineProcess:
    """Not started yet. Quick to import and to call, so that it can come first of all."""
    return EngineProcess("ridgeline.ahead:prepare", config)


def prepare(config: Config) -> None:
    """Import what such an engine needs, in its process."""
    batching = config.batching
    choices = {"batching": batching.batching, "packing": batching.packing, "kv_cache": batching.kv_cache}
    for name in (*ALWAYS, *(MENU[option][choice].partition(":")[0] for option, choice in choices.items())):
        import_module(name)


ALWAYS = (
    "ridgeline.build",
    "ridgeline.device.choose",
    "ridgeline.device.kept",
    "ridgeline.models.gpt2_weights",
    "ridgeline.models.schemes",
    "ridgeline.runner.graphs",
    "ridgeline.runner.recorder",
    "ridgeline.runner.runner",
    "ridgeline.runner.timing",
)
