"""A checkpoint folder as named tensors: safetensors, in one file or several. Executes nothing; knows no architecture.

Every failure is a ModelError that names the file or tensor, what was expected and what was found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ridgeline.core.errors import ModelError
from ridgeline.core.folder import INDEX, INDEX_BYTES, SINGLE, weight_files
from ridgeline.core.jsonfile import read_object

Progress = Callable[[int, int], None]
"""(bytes read, bytes in all)."""

FLOATS = ("F32", "F16", "BF16")
BYTES_OF_FORMAT = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1}


class Checkpoint:
    """Where each tensor of a folder lies, read from the headers; tensors are loaded one at a time.

    prefix: dropped from the names that have it (`transformer.` of GPT-2).
    """

    def __init__(self, folder: Path, prefix: str = "", progress: Progress | None = None) -> None:
        self._folder, self._progress = folder, progress
        self._files = {path: _opened(path) for path in _files(folder)}
        self._places: dict[str, tuple[Path, str]] = {}
        for path, file in self._files.items():
            for stored in file.keys():  # noqa: SIM118 - not a dict
                name = stored.removeprefix(prefix)
                if name in self._places:
                    raise ModelError(f"{path}: tensor {stored} is there twice")
                self._places[name] = (path, stored)
        self._unread: dict[str, int] = {}
        self._total_bytes = 0

    def names(self) -> set[str]:
        return set(self._places)

    def require(self, expected: Iterable[str], optional: Callable[[str], bool]) -> None:
        """Refuse a checkpoint that lacks an expected tensor or has one that is neither expected nor optional.

        Progress is counted over the expected ones.
        """
        wanted = set(expected)
        missing = sorted(wanted - self.names())
        unknown = sorted(name for name in self.names() - wanted if not optional(name))
        if missing:
            raise ModelError(f"{self._folder}: {_some(missing)} missing; the config asks for more than there is")
        if unknown:
            raise ModelError(f"{self._folder}: {_some(unknown)} unknown; this is not the architecture the config names")
        self._unread = {name: self._num_bytes(name) for name in wanted}
        self._total_bytes = sum(self._unread.values())

    def format(self, name: str) -> str:
        """As safetensors names it: F32, BF16 ..."""
        path, stored = self._places[name]
        return str(self._files[path].get_slice(stored).get_dtype())

    def shape(self, name: str) -> tuple[int, ...]:
        path, stored = self._places[name]
        return tuple(self._files[path].get_slice(stored).get_shape())

    def tensor(self, name: str, shape: tuple[int, ...], formats: Collection[str] = FLOATS) -> Tensor:
        """One tensor, in the checkpoint's format, which must be one of formats. It may be a view of the file: copy it
        before keeping it."""
        path, stored = self._places[name]
        found, format_ = self.shape(name), self.format(name)
        if found != shape:
            raise ModelError(f"{path}: tensor {name} has shape {list(found)}, the config asks for {list(shape)}")
        if format_ not in formats:
            raise ModelError(f"{path}: tensor {name} has format {format_}; expected one of {', '.join(formats)}")
        try:
            tensor: Tensor = self._files[path].get_tensor(stored)
        except (SafetensorError, RuntimeError) as error:
            raise ModelError(f"{path}: tensor {name} cannot be read ({error})") from error
        if self._unread.pop(name, None) is not None and self._progress is not None:
            self._progress(self._total_bytes - sum(self._unread.values()), self._total_bytes)
        return tensor

    def _num_bytes(self, name: str) -> int:
        path, stored = self._places[name]
        part = self._files[path].get_slice(stored)
        shape: list[int] = part.get_shape()
        return math.prod(shape) * BYTES_OF_FORMAT.get(str(part.get_dtype()), 0)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a whole safetensors file ({error}); download it again") from error


def _files(folder: Path) -> tuple[Path, ...]:
    paths = weight_files(folder)
    if not (folder / SINGLE).is_file():
        _check_index(folder / INDEX, paths)
    return paths


def _check_index(index: Path, paths: tuple[Path, ...]) -> None:
    held = {path.name: set(_opened(path).keys()) for path in paths}
    for tensor, name in read_object(index, max_bytes=INDEX_BYTES)["weight_map"].items():
        if tensor not in held[name]:
            raise ModelError(f"{index} places {tensor} in {name}, which does not have it")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"tensor{'s' if len(names) > 1 else ''} {shown} {'are' if len(names) > 1 else 'is'}"


def as_weight(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A contiguous copy on the device, never a view of a file that may change."""
    return torch.empty(tensor.shape, dtype=dtype, device=device).copy_(tensor)
