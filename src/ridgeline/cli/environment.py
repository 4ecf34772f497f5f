"""The environment variables that Ridgeline reads; for the hub the names are the Hugging Face libraries' own."""

from __future__ import annotations

import os
from pathlib import Path

from ridgeline.hub.access import Access


def hub_access() -> Access:
    """How the hub is reached, as the environment says (the names are the Hugging Face libraries' own)."""
    cache = os.environ.get("HF_HUB_CACHE")
    return Access(
        endpoint=os.environ.get("HF_ENDPOINT") or None,
        cache_dir=Path(cache).expanduser() if cache else None,  # None: as the hub's library has it (HF_HOME, ...)
        token=os.environ.get("HF_TOKEN") or None,
        offline=os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"),
    )


def api_keys() -> str | None:
    """Keys that clients of a server need, separated by commas. From here and never from argv, which everybody sees."""
    return os.environ.get("RIDGELINE_API_KEYS") or None
