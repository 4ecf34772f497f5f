"""The environment variables that Ridgeline reads: its own, Hugging Face's and OpenAI's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from ridgeline.core.errors import ConfigError

if TYPE_CHECKING:
    from ridgeline.hub.access import Access

_API_KEYS, _ADMIN_KEYS = "RIDGELINE_API_KEYS", "RIDGELINE_ADMIN_KEYS"


def hub_access() -> Access:
    """How the hub is reached, as the environment says (the names are the Hugging Face libraries' own)."""
    from ridgeline.hub.access import Access

    cache = os.environ.get("HF_HUB_CACHE")
    return Access(
        endpoint=os.environ.get("HF_ENDPOINT") or None,
        cache_dir=Path(cache).expanduser() if cache else None,  # None: as the hub's library has it (HF_HOME, ...)
        token=os.environ.get("HF_TOKEN") or None,
        offline=os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"),
    )


def cache_dir() -> Path:
    """The one folder for what is kept between runs and can be made again (docs/caches.md). It may not exist."""
    named = os.environ.get("RIDGELINE_CACHE_DIR")
    return Path(named).expanduser().absolute() if named else platformdirs.user_cache_path("ridgeline", appauthor=False)


def api_key() -> str | None:
    """The key that clients of OpenAI's interface send. Raises ConfigError for what no header can carry."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    return check_key("OPENAI_API_KEY", key) if key else None


def check_key(source: str, key: str) -> str:
    """The key itself is not repeated. Raises ConfigError."""
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(f"{source}: is no key; a key is one line of plain characters")
    return key


def keyless() -> dict[str, str]:
    """The whole environment for servers that Ridgeline starts and measures itself: without keys that clients need."""
    return {name: value for name, value in os.environ.items() if name not in (_API_KEYS, _ADMIN_KEYS)}


def api_keys() -> str | None:
    """Keys that clients of a server need, separated by commas. From here and never from argv, which everybody sees."""
    return os.environ.get(_API_KEYS)  # set and empty is a mistake that must not open the server


def admin_keys() -> str | None:
    """Keys that an operator needs for a server's own routes, separated by commas."""
    return os.environ.get(_ADMIN_KEYS)
