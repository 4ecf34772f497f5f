"""Machine: the measured ceilings of a device, from the cache or measured now. Knows a folder; knows no measurement."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ridgeline.core.ceilings import Ceilings, from_json, to_json
from ridgeline.core.errors import ConfigError
from ridgeline.core.records import provenance, write_run

if TYPE_CHECKING:
    from ridgeline.device.base import Device

FOLDER = "ceilings"
_MAX_BYTES = 1 << 20
Progress = Callable[[str, int, int], None]
"""Called with (what is measured now, measurements done, all of them)."""


def ceilings_path(cache: Path, device: Device) -> Path:
    """A file for each device, number of threads and version of torch: each changes what can be reached."""
    about = provenance()
    facts = f"{device.name} {about['cpu']} {about['cores']} {about['libraries'].get('torch')}"
    return cache / FOLDER / f"{hashlib.sha256(facts.encode()).hexdigest()[:16]}.json"


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


def read_ceilings(path: Path) -> Ceilings:
    """Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
        document = json.loads(data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a file of ceilings ({error}); run `ridgeline calibrate` again") from error
    return from_json(str(path), document)
