"""Address: where a server is, checked. Knows no HTTP."""

from __future__ import annotations

from urllib.parse import urlsplit

from ridgeline.core.errors import ConfigError


def check_address(flag: str, url: str) -> None:
    """Raises ConfigError, naming the flag, for what is no address, and for one with a password in it."""
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
        has_user = "@" in parts.netloc
    except ValueError:  # a bracket without its end, a port that is no number
        wrong, has_user = True, False
    if has_user:  # not repeated: run files and screens are shown to others
        raise ConfigError(f"{flag}: leave out what stands before the @: a key belongs into OPENAI_API_KEY")
    if wrong:
        raise ConfigError(f"{flag} {url!r}: is no address; write for example http://localhost:8000")
