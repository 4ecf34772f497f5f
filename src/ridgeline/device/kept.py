"""Kept ceilings: where those that were measured of a device lie, and what they say of memory. Measures nothing."""

from __future__ import annotations

import hashlib
import json
import os
from importlib import metadata
from pathlib import Path

from ridgeline.core.ceilings import Ceilings, from_json
from ridgeline.core.errors import ConfigError
from ridgeline.core.records import cpu_name
from ridgeline.device.base import Device
from ridgeline.device.datasheets import datasheet_of

FOLDER = "ceilings"
_MAX_BYTES = 1 << 20


def ceilings_path(cache: Path, device: Device) -> Path:
    """A file for each device, number of threads and version of torch: each changes what can be reached."""
    facts = f"{device.name} {cpu_name()} {os.cpu_count()} {metadata.version('torch')}"
    return cache / FOLDER / f"{hashlib.sha256(facts.encode()).hexdigest()[:16]}.json"


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


def memory_rate(cache: Path | None, device: Device, streamed_bytes: int) -> tuple[float, str] | None:
    """Bytes a second that a step which streams so many can read at most, and whose word that is.

    As measured, of the nearest level of memory that holds them; of memory, as the datasheet has it; or nobody knows.
    """
    try:
        ceilings = None if cache is None else read_ceilings(ceilings_path(cache, device))
    except ConfigError:
        ceilings = None  # `ridgeline calibrate` says what is wrong with it; a server has other things to do
    if ceilings is not None:
        level = ceilings.level_for(streamed_bytes)
        where = "" if level is ceilings.memory else f", {level.name}"
        return level.read.median, f"measured {_rate(level.read.median)}{where}"
    sheet = datasheet_of(device.name)
    return None if sheet is None else (sheet.bytes_per_s, f"datasheet {_rate(sheet.bytes_per_s)}")


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e12:.3g} TB/s" if bytes_per_s >= 1e12 else f"{bytes_per_s / 1e9:.3g} GB/s"
