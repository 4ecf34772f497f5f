"""Machine: the measured ceilings of a device, from the cache or measured now. Knows a folder; knows no measurement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ridgeline.core.ceilings import Ceilings, to_json
from ridgeline.core.errors import ConfigError
from ridgeline.core.records import provenance, write_run
from ridgeline.device.kept import ceilings_path, read_ceilings

if TYPE_CHECKING:
    from ridgeline.device.base import Device

__all__ = ["Progress", "ceilings_of", "ceilings_path", "read_ceilings"]

Progress = Callable[[str, int, int], None]
"""Called with (what is measured now, measurements done, all of them)."""


def ceilings_of(device: Device, cache: Path, progress: Progress, *, fresh: bool = False) -> Ceilings:
    """The ceilings measured before, or measured now and kept. fresh: measure again.

    Raises ConfigError for a file that cannot be read or written, or was not written by this version.
    """
    path = ceilings_path(cache, device)
    if not fresh and path.exists():
        return read_ceilings(path)
    from ridgeline.device.peaks import measure

    found = measure(device, cache, progress, provenance())
    try:
        write_run(path, to_json(found))
    except OSError as error:
        raise ConfigError(f"{path}: the ceilings cannot be kept ({error.strerror or error})") from error
    return found
