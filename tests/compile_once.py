"""A compiler that remembers: what one test had compiled, with the same flags by the same program, the next one gets.

Tests and the programs they start keep kernels in folders of their own, so that they do not share what they are about,
and each would compile the same source again, for three to eight seconds. This stands before the real compilers in PATH
for as long as a run of the suite takes; the cache that is tested (device/jit.py) knows nothing of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "clang++")


def install(folder: Path) -> None:
    """Before the compilers that are found in PATH, for this process and those it starts."""
    found = {name: path for name in COMPILERS if (path := shutil.which(name)) is not None}
    for name, path in found.items():
        program = folder / name
        # -IS: nothing but the standard library, which starts in a hundredth of a second.
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" "{folder}" "{path}" "$@"\n')
        program.chmod(0o700)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def run(folder: Path, compiler: str, arguments: list[str]) -> int:
    """As the compiler would; only files of one text are remembered, and nothing that failed."""
    if "-c" not in arguments or "-o" not in arguments:
        os.execv(compiler, [compiler, *arguments])
    source, target = Path(arguments[-1]), Path(arguments[arguments.index("-o") + 1])
    text = source.read_bytes() if source.is_file() else b'#include "'
    if b'#include "' in text:
        os.execv(compiler, [compiler, *arguments])
    flags = [flag for flag in arguments if flag not in (str(source), str(target))]
    facts = "\0".join((compiler, source.suffix, *flags)).encode()
    kept = folder / hashlib.sha256(facts + b"\0" + text).hexdigest()
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two workers that need the same: one compiles
        if not kept.exists():
            done = subprocess.run([compiler, *arguments], check=False)
            if done.returncode != 0:
                return done.returncode
            made = kept.with_suffix(".o")
            shutil.copyfile(target, made)
            made.replace(kept)
            return 0
    shutil.copyfile(kept, target)
    return 0


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
