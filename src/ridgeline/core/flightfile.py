"""A recording from a file or a socket: bounded, strict, and every complaint names the file and the field.

Knows what core/flight.py writes; trusts nothing in it.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ridgeline.core.errors import ConfigError
from ridgeline.core.flight import KIND, PHASES, STALLS, VERSION, WHATS, Columns, Lives, Recording, Rows, Steps
from ridgeline.core.types import Ints

MAX_BYTES = 128 * 2**20
"""Of a recording's file at most: the largest ring is some 20 MB of JSON."""
_MOST = 2**53  # what JSON's numbers hold exactly
_MOST_US = _MOST / 1000
_MOST_ROWS = 4_000_000


def decoded(data: bytes, where: str = "recording") -> Recording:
    """A recording from JSON that may come from anywhere. where: what to call it in a complaint. Raises ConfigError."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{where}: larger than {MAX_BYTES:,} bytes; no recording is, so it was not read")
    try:
        value = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid JSON ({error}); a recording comes from GET /v1/recording") from error
    return _Reader(where, value).recording()


def read_recording(path: Path) -> Recording:
    """Raises ConfigError where the file cannot be read or is no recording."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    return decoded(data, str(path))


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON knows")


class _Reader:
    """One JSON value that claims to be a recording."""

    def __init__(self, where: str, value: Any) -> None:
        self._where = where
        if not isinstance(value, dict) or value.get("kind") != KIND:
            raise ConfigError(f'{where}: not a recording; one begins with "kind": "{KIND}"')
        if value.get("version") != VERSION:
            raise ConfigError(f"{where}: a recording of version {value.get('version')!r:.40}; only {VERSION} is known")
        self._values: dict[str, Any] = value

    def recording(self) -> Recording:
        reason = self._text("reason")
        if reason not in ("asked", "crash"):
            raise self._refuse("reason", "must be asked or crash")
        message = self._values.get("message")
        origin_ns = self._integer("origin_ns")
        steps = Steps(**self._columns("steps", Steps, origin_ns, stall=("stalls", STALLS)))
        rows = Rows(**self._columns("rows", Rows, origin_ns, phase=("phases", PHASES)))
        lives = Lives(**self._columns("lives", Lives, origin_ns, what=("whats", WHATS)))
        if (steps.rows < 0).any() or int(steps.rows.sum()) != len(rows):
            raise self._refuse("steps.rows", f"must add up to the {len(rows)} rows that are there")
        return Recording(
            model=self._text("model"),
            device=self._text("device"),
            batching=self._text("batching"),
            block_size=self._integer("block_size"),
            num_blocks=self._integer("num_blocks"),
            made_unix_s=self._number("made_unix_s"),
            steps=steps,
            rows=rows,
            lives=lives,
            reason="crash" if reason == "crash" else "asked",
            message=None if message is None else self._text("message"),
            names=self._names(),
        )

    def _refuse(self, name: str, must: str) -> ConfigError:
        return ConfigError(f"{self._where}: {name} {must}; take a recording as the server wrote it")

    def _text(self, name: str) -> str:
        value = self._values.get(name)
        if not isinstance(value, str):
            raise self._refuse(name, "must be a string")
        return value

    def _number(self, name: str) -> float:
        value = self._values.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _MOST:
            raise self._refuse(name, "must be a number")
        return float(value)

    def _integer(self, name: str) -> int:
        value = self._values.get(name)
        if type(value) is not int or not 0 <= value < 2**62:
            raise self._refuse(name, "must be a whole number that is not negative")
        return value

    def _names(self) -> dict[int, str]:
        value = self._values.get("names", {})
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
            raise self._refuse("names", "must be an object of strings")
        if not all(key.isascii() and key.isdigit() and len(key) < 19 for key in value):
            raise self._refuse("names", "must have keys that are whole numbers")
        return {int(key): name for key, name in value.items()}

    def _columns(
        self, table: str, kind: type[Columns], origin_ns: int, **codes: tuple[str, tuple[str, ...]]
    ) -> dict[str, Ints]:
        """codes: by column, where its names stand in the file and which are known."""
        given = self._values.get(table)
        if not isinstance(given, dict):
            raise self._refuse(table, "must be an object of columns")
        columns: dict[str, Ints] = {}
        for f in fields(kind):
            if f.name.endswith("_ns"):
                name = f"{f.name[:-3]}_us"
                us = self._column(f"{table}.{name}", given.get(name), (int, float), _MOST_US)
                columns[f.name] = origin_ns + np.rint(us * 1000).astype(np.int64)
            else:
                columns[f.name] = self._column(f"{table}.{f.name}", given.get(f.name), (int,), _MOST).astype(np.int64)
        if len({len(column) for column in columns.values()}) > 1:
            raise self._refuse(table, "must have columns that are equally long")
        for name, (names, known) in codes.items():
            columns[name] = self._coded(f"{table}.{name}", columns[name], names, known)
        return columns

    def _column(self, name: str, value: Any, kinds: tuple[type, ...], most: float) -> Any:
        """[n] of the numbers' own kind."""
        if not isinstance(value, list) or len(value) > _MOST_ROWS:
            raise self._refuse(name, f"must be a list of at most {_MOST_ROWS:,} numbers")
        if not {type(one) for one in value} <= set(kinds):
            raise self._refuse(name, "must hold whole numbers" if kinds == (int,) else "must hold numbers")
        if value and not -most <= min(value) <= max(value) <= most:
            raise self._refuse(name, f"must hold numbers up to {most:,.0f}")
        return np.array(value, np.int64 if kinds == (int,) else np.float64)

    def _coded(self, name: str, codes: Ints, names: str, known: tuple[str, ...]) -> Ints:
        """The file's codes as ours, by name."""
        given = self._values.get(names)
        if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
            raise self._refuse(names, "must be a list of strings")
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(given):
            raise self._refuse(name, f"must hold codes into {names}")
        used = [given[code] for code in np.unique(codes)]
        for word in used:
            if word not in known:
                raise self._refuse(names, f"has {word!r:.40}, which is none of {', '.join(filter(None, known))}")
        ours = np.array([known.index(word) if word in known else 0 for word in given], np.int64)
        return ours[codes] if len(codes) else codes
