"""JSON files that come from outside: bounded, strict, and every complaint names the file and the field.

Knows no field's meaning; checkpoint.py and text/tokenizer.py do.
"""

from __future__ import annotations

import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ridgeline.core.errors import ModelError

MIB = 2**20


def read_object(path: Path, *, max_bytes: int = MIB) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelError; NaN and Infinity are not JSON and are refused."""
    text = read_text(path, max_bytes=max_bytes)
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON ({error}); repair the file or download it again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds a JSON {type(value).__name__}, but must hold an object ({{...}})")
    return value


def read_text(path: Path, *, max_bytes: int) -> str:
    """A whole UTF-8 file. Raises ModelError if it is missing, too large or not text."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file; a model folder needs it")
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(data) > max_bytes:
        raise ModelError(f"{path}: larger than {max_bytes:,} bytes; no real file of this kind is, so it was not read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not UTF-8 text ({error}); download it again") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON knows")


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one file, read with types and bounds. An absent field and `null` are the same: the default."""

    path: Path
    values: dict[str, Any]

    def refuse(self, name: str, must: str) -> ModelError:
        return ModelError(f"{self.path}: {name} is {reprlib.repr(self.values.get(name))}, {must}")

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        value = self.values.get(name)
        if value is None:
            if default is None:
                raise ModelError(f"{self.path}: {name} is missing; add it (a whole number from {low} to {high})")
            return default
        if type(value) is not int or not low <= value <= high:
            raise self.refuse(name, f"but must be a whole number from {low} to {high}; correct the file")
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) not in (int, float) or not low <= value <= high:  # a comparison that NaN fails too
            raise self.refuse(name, f"but must be a number from {low:g} to {high:g}; correct the file")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is not bool:
            raise self.refuse(name, "but must be true or false; correct the file")
        return value

    def text(self, name: str, default: str) -> str:
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is not str:
            raise self.refuse(name, "but must be a string; correct the file")
        return value
