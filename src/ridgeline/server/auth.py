"""Keys: who may use the server. Knows secrets only as hashes; knows no route.

A key is looked for by comparing SHA-256 digests with all of them in constant time, so that an answer's time tells
neither how much of a key was right nor which one it was.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ridgeline.core.errors import ConfigError

_NAMED = re.compile(r"([A-Za-z0-9._-]{1,64}):(.*)")
_SECRET = re.compile(r"[!-~]{8,256}")


@dataclass(frozen=True, slots=True)
class Key:
    """name: what the log calls it; never the secret."""

    name: str
    digest: bytes = field(repr=False)


class Keys:
    """Empty: nobody needs one."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = tuple(keys)
        names = [key.name for key in self._keys]
        if len(set(names)) < len(names):
            raise ConfigError("API keys: two have the same name; names are how the log tells them apart")

    def __len__(self) -> int:
        return len(self._keys)

    def check_apart(self, others: Keys) -> None:
        """Raises ConfigError if a key, or a name, is among the others too: the one would open what the other does."""
        ours, theirs = {key.digest for key in self._keys}, {key.digest for key in others._keys}
        if ours & theirs:
            raise ConfigError("a secret is both an API key and an admin key; clients would be admins: make another")
        Keys((*self._keys, *others._keys))

    def name_of(self, authorization: str) -> str | None:
        """The name of the key in an Authorization header, or None if it is not one of ours."""
        scheme, _, secret = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest, found = _digest(secret.strip()), None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key.name
        return found


@dataclass(frozen=True, slots=True)
class Kind:
    """Of keys: where the operator gives them, and how those without a name are called."""

    option: str
    variable: str
    prefix: str = ""


CLIENT = Kind("--api-key-file", "RIDGELINE_API_KEYS")
ADMIN = Kind("--admin-key-file", "RIDGELINE_ADMIN_KEYS", "admin-")


def read_keys(path: Path | None, listed: str | None, kind: Kind = CLIENT) -> tuple[Keys, str | None]:
    """Keys from a file and from a list separated by commas, and a warning where others can read the file.

    Raises ConfigError, never with a key in its message.
    """
    keys: list[Key] = []
    warning = None
    if path is not None:
        text, warning = _read(path, kind)
        lines = [line.strip() for line in text.splitlines()]
        found = [
            _key(line, f"{path}, line {i}", f"{kind.prefix}key-{i}") for i, line in enumerate(lines, 1) if _is_key(line)
        ]
        if not found:
            raise ConfigError(
                f"{kind.option} {path}: has no key in it; leave the option out to serve without such keys"
            )
        keys += found
    if listed is not None:
        parts = [part.strip() for part in listed.split(",")]
        found = [
            _key(part, f"{kind.variable}, {i}.", f"{kind.prefix}env-{i}") for i, part in enumerate(parts, 1) if part
        ]
        if not found:
            raise ConfigError(f"{kind.variable}: is set and has no key in it; unset it to serve without such keys")
        keys += found
    return Keys(keys), warning


def _is_key(line: str) -> bool:
    return bool(line) and not line.startswith("#")


def _read(path: Path, kind: Kind) -> tuple[str, str | None]:
    try:
        text, mode = path.read_text(encoding="utf-8"), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text in UTF-8"
        raise ConfigError(f"{kind.option} {path}: {reason}") from None
    if os.name == "posix" and mode & stat.S_IROTH:
        return text, f"{kind.option} {path}: every user of this machine can read it; chmod 600 makes it yours alone"
    return text, None


def _key(text: str, where: str, name: str) -> Key:
    named = _NAMED.fullmatch(text)
    if named is not None:
        name, text = named[1], named[2].strip()
    if not _SECRET.fullmatch(text):
        raise ConfigError(f"API key ({where}): a key is 8 to 256 visible ASCII characters without spaces")
    return Key(name, _digest(text))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
