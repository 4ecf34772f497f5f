"""Trials: kernels that were tried on this machine and work are not tried again. Knows names and files; knows no kernel.

A trial that took long is remembered on disk too, under a name made of the card, the libraries and the kernels' source.
Only success is remembered: what failed may have failed for want of memory.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import torch

LONG_S = 0.1
"""A trial that took less is repeated in the next process: a file is not worth it."""
T = TypeVar("T")


def once(
    try_out: Callable[[T], None], about: Sequence[object], folder: Path | None, name: Callable[[T], str] = repr
) -> Callable[[T], None]:
    """try_out, but what it accepted before is accepted. about: what the outcome depends on, but for the kernels
    themselves, whose name `name` gives. folder: of the cache; None: for this process alone."""

    def tried(kernels: T) -> None:
        key = hashlib.sha256("\n".join(map(str, (*about, name(kernels)))).encode()).hexdigest()[:32]
        file = None if folder is None else folder / "trials" / key
        if key in _passed() or (file is not None and file.is_file()):
            _passed().add(key)
            return
        begun = time.perf_counter()
        try_out(kernels)
        _passed().add(key)
        if file is not None and time.perf_counter() - begun >= LONG_S:
            _note(file, name(kernels))

    return tried


def surroundings(device: torch.device, *sources: str | None) -> tuple[str, ...]:
    """The card, the libraries and the text of source files, for `about`."""
    about = [torch.__version__, _version("triton")]
    if device.type == "cuda":
        about += [torch.cuda.get_device_name(device), str(torch.cuda.get_device_capability(device))]
    return (*about, *(Path(source).read_text(encoding="utf-8") for source in sources if source is not None))


@cache
def _passed() -> set[str]:
    """Of this process."""
    return set()


def _note(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", encoding="utf-8")
    except OSError:  # it is tried again next time
        pass


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
