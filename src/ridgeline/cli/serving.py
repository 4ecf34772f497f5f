"""The commands that serve: `ridgeline serve`, and phase 1's server.py."""

from __future__ import annotations

from contextlib import nullcontext

from ridgeline.ahead import engine_process
from ridgeline.cli.environment import admin_keys, api_keys, cache_dir, hub_access
from ridgeline.cli.options import options
from ridgeline.core.config import Config
from ridgeline.core.stopwatch import process_start_ns

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
    # First of all, because it takes longest; what follows runs beside it.
    with nullcontext() if config.server.in_process else engine_process(config) as ahead:
        from ridgeline import online
        from ridgeline.terminal import Terminal

        keys = online.ListedKeys(api_keys(), admin_keys())
        raise SystemExit(online.serve(config, hub_access(), Terminal(), started_ns, keys, cache_dir(), ahead))
