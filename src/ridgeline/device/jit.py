"""Jit: C and C++ compiled on this machine for this machine, kept between runs. Knows a compiler and a folder; knows no
kernel.

What is loaded runs as this program, so only a file that this user alone can have written is loaded, and only if it is
whole: its digest lies beside it. Otherwise it is compiled again.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ridgeline.device.base import Device

FOLDER = "kernels"
SHARED = Path(__file__).parent / "native"
"""Of what every library may include."""
_TARGETS = (("-march=native",), ("-mcpu=native",), ())
_COMPILE_S = 120
_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)


class CannotBuild(Exception):
    """Nothing can be compiled or loaded here; the message is half a sentence that says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Language:
    """programs: what may compile it, best first. compiling: flags before the target's."""

    name: str
    suffix: str
    programs: tuple[str, ...]
    compiling: tuple[str, ...]
    package: str


C = Language("C", ".c", ("cc", "gcc", "clang"), (), "gcc")
CPP = Language("C++", ".cpp", ("g++", "c++", "clang++"), ("-std=c++17", "-pthread", "-fno-math-errno"), "g++")


@dataclass(frozen=True, slots=True)
class Compiler:
    path: str
    version: str
    language: Language = C

    @staticmethod
    def find(which: Callable[[str], str | None] = shutil.which, language: Language = C) -> Compiler:
        """The first that answers. Raises CannotBuild."""
        for name in language.programs:
            path = which(name)
            told = None if path is None else _run([path, "--version"])
            if path is not None and told is not None and told.returncode == 0:
                return Compiler(path, told.stdout.partition("\n")[0].strip(), language)
        raise CannotBuild(
            f"there is no {language.name} compiler; install one (on Debian and Ubuntu: apt install {language.package})"
        )

    def build(self, source: Path, target: Path) -> None:
        """Raises CannotBuild."""
        complaint = ""
        for flags in _TARGETS:
            done = _run(
                [self.path, "-O3", *self.language.compiling, *flags, "-fPIC", "-shared", "-o", str(target), str(source)]
            )
            if done is not None and done.returncode == 0:
                return
            complaint = "it did not end" if done is None else _first_error(done.stderr)
        raise CannotBuild(
            f"{self.path} cannot compile a shared library ({complaint}); install the C headers and linker"
        )


def source_of(path: Path) -> str:
    """A file with the files that it includes, of its own folder or SHARED, each once, so that one digest covers all."""
    seen: set[str] = set()

    def text_of(path: Path) -> str:
        return _INCLUDE.sub(included, path.read_text(encoding="utf-8")).replace("#pragma once\n", "")

    def included(found: re.Match[str]) -> str:
        if found[1] in seen:
            return ""
        seen.add(found[1])
        own = path.with_name(found[1])
        return text_of(own if own.exists() else SHARED / found[1])

    return text_of(path)


def load(source: str, cache: Path | None, compiler: Compiler) -> ctypes.CDLL:
    """The library made of this source, from `cache`/kernels or compiled now; None: for this process alone, once.
    Raises CannotBuild."""
    return _alone(source, compiler) if cache is None else _kept(source, cache, compiler)


class Building:
    """A library on its way into a cache. The compiler is another process; a thread waits for it, and does nothing
    else."""

    def __init__(self, source: str, cache: Path, compiler: Compiler) -> None:
        self._what = source, cache, compiler
        self._over = threading.Event()
        self._error: CannotBuild | None = None
        threading.Thread(target=self._build, name="compiler", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether `library` would not wait."""
        return self._over.is_set()

    def wait(self, seconds: float) -> None:
        self._over.wait(seconds)

    def library(self) -> ctypes.CDLL:
        """Loaded by whoever asks. Raises CannotBuild."""
        self._over.wait()
        if self._error is not None:
            raise self._error
        return load(*self._what)

    def _build(self) -> None:
        source, cache, compiler = self._what
        try:
            path = cache / FOLDER / _name(source, compiler)
            if not _whole(path):
                _build(source, path, compiler)
        except CannotBuild as error:
            self._error = error
        except OSError as error:
            self._error = CannotBuild(f"what was compiled cannot be kept ({error})")
        finally:
            self._over.set()


def begin(source: str, cache: Path, compiler: Compiler) -> Building | None:
    """Compile it into this cache while others go on. None: it is there already, or cannot be kept there."""
    if is_kept(source, cache, compiler):
        return None
    try:
        return None if _private(cache / FOLDER) is None else Building(source, cache, compiler)
    except OSError:
        return None


@functools.cache
def _alone(source: str, compiler: Compiler) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="ridgeline-") as folder:
        return _kept(source, Path(folder), compiler)


def is_kept(source: str, cache: Path, compiler: Compiler) -> bool:
    """Whether `load` finds it in this cache, and compiles nothing."""
    folder = cache / FOLDER
    return _ours(folder) and _whole(folder / _name(source, compiler))


def serves(device: Device, opened: Callable[[], object]) -> bool:
    """Whether code for a CPU runs on this device. opened: builds it, or raises CannotBuild."""
    if device.torch_device.type != "cpu":
        return False
    try:
        opened()
    except CannotBuild:
        return False
    return True


def can_compile() -> bool:
    """Whether there is a C++ compiler."""
    try:
        Compiler.find(language=CPP)
    except CannotBuild:
        return False
    return True


def _name(source: str, compiler: Compiler) -> str:
    how = compiler.language.compiling
    facts = "\0".join((source, compiler.path, compiler.version, *how, platform.machine(), _cpu_flags()))
    return hashlib.sha256(facts.encode()).hexdigest()[:24] + ".so"


def _kept(source: str, cache: Path, compiler: Compiler) -> ctypes.CDLL:
    name = _name(source, compiler)
    try:
        folder = _private(cache / FOLDER)
        if folder is None:
            with tempfile.TemporaryDirectory(prefix="ridgeline-") as place:
                return ctypes.CDLL(str(_build(source, Path(place) / name, compiler)))
        path = folder / name
        return ctypes.CDLL(str(path if _whole(path) else _build(source, path, compiler)))
    except OSError as error:
        raise CannotBuild(
            f"what was compiled cannot be kept or loaded ({error}); set RIDGELINE_CACHE_DIR to a folder of your own on "
            "a disk that may hold programs"
        ) from error


def _build(source: str, path: Path, compiler: Compiler) -> Path:
    """Into its place at once, so that no reader sees half of it."""
    with tempfile.TemporaryDirectory(prefix=".building-", dir=path.parent) as place:
        code, made, digest = (Path(place) / name for name in (f"source{compiler.language.suffix}", "made.so", "digest"))
        code.write_text(source, encoding="utf-8")
        compiler.build(code, made)
        digest.write_text(_digest(made), encoding="ascii")
        for file in (made, digest):  # whatever the umask: what others can write is not loaded the next time
            file.chmod(0o700)
        made.replace(path)
        digest.replace(_digest_of(path))
    return path


def _whole(path: Path) -> bool:
    beside = _digest_of(path)
    if not (_ours(path) and _ours(beside)):
        return False
    return beside.read_bytes()[:64] == _digest(path).encode()


def _private(folder: Path) -> Path | None:
    """The folder, made if it was missing; None where others can write into it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder if _ours(folder) else None


def _ours(path: Path) -> bool:
    """A plain file or folder, no link, that nobody but this user can change."""
    try:
        told = path.lstat()
    except FileNotFoundError:
        return False
    if not (stat.S_ISREG(told.st_mode) or stat.S_ISDIR(told.st_mode)):
        return False
    if not hasattr(os, "getuid"):
        return True
    return told.st_uid == os.getuid() and not told.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _cpu_flags() -> str:
    """A home folder may be shared by machines of different instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _first_error(told: str) -> str:
    lines = told.strip().splitlines() or ["it does not say why"]
    return next((line for line in lines if "error" in line), lines[0])


def _run(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_COMPILE_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
