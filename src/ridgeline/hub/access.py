"""How the hub is reached, and the error that says why it was not. Knows no library and no folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ridgeline.core.errors import ModelError


@dataclass(frozen=True, slots=True)
class Access:
    """endpoint, cache_dir, token: None leaves them to the hub's library. offline: ask nobody."""

    endpoint: str | None = None
    cache_dir: Path | None = None
    token: str | None = None
    offline: bool = False


class HubError(ModelError):
    """The operator must act, or accept another model. reason: a clause without an end; advice: what to do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason}; {advice}")
        self.reason = reason
        self.advice = advice
