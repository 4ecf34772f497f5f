"""Finding: what a look at this machine found, and what to do about it. Knows words; looks at nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "missing", "blocked"]
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Finding:
    """name: what was looked for. blocked: it is there, but cannot be used. detail: what was seen. remedy: what to do,
    with the exact line where there is one; NOTHING where nothing can or need be done."""

    name: str
    state: State
    detail: str
    remedy: str = NOTHING
