"""The commands that serve: `ridgeline serve`, and phase 1's server.py."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from types import FrameType

from ridgeline.ahead import engine_process
from ridgeline.cli.environment import admin_keys, api_keys, cache_dir, hub_access
from ridgeline.cli.options import options
from ridgeline.core.config import Config
from ridgeline.core.stopwatch import process_start_ns
from ridgeline.engine.process import EngineProcess

PHASE1 = {
    "batching": "dynamic",
    "batch_window_ms": 50.0,
    "max_batch_size": 8,
    "packing": "padded",
    "prefix_cache": False,  # a second run of the client would find the first one's prompts, and its pictures differ
    "port": 8000,
}


@options("model", "batching", "limits", "server", "clients")
def serve(config: Config) -> None:
    """Serve a model over HTTP (OpenAI-compatible), with a playground page at /.

    Example: ridgeline serve --model demo --port 8000
    """
    _serve(config)


@options("model", "batching", "limits", "server", "clients", defaults=PHASE1)
def server(config: Config) -> None:
    """Phase 1: a batched GPT-2 server with dynamic batching. Takes every flag of `ridgeline serve`."""
    _serve(config)


def _serve(config: Config) -> None:
    started_ns = process_start_ns()
    ahead = None if config.server.in_process else engine_process(config)
    obey_signals(ahead)
    # First of all, because it takes longest; what follows runs beside it.
    with ahead or nullcontext():
        from ridgeline import online
        from ridgeline.terminal import Terminal

        keys = online.ListedKeys(api_keys(), admin_keys())
        raise SystemExit(online.serve(config, hub_access(), Terminal(), started_ns, keys, cache_dir(), ahead))


def obey_signals(ahead: EngineProcess | None) -> None:
    """While the server starts, as it does when it listens (server/serve.py): otherwise a stop that comes early is lost.

    A script's background job is born ignoring Ctrl-C, and the first process of a container all that it does not handle.
    An exception would not do: what is raised in a callback of an import or while a source is compiled is dropped.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        if ahead is not None:
            ahead.kill()
        os._exit(128 + number)

    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, end)
