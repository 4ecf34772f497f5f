"""The suite's own compiler: it compiles once what is the same, and remembers no failure."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import compile_once

COMPILER = """#!/bin/sh
echo "$@" >> "{calls}"
case "$*" in *wrong*) exit 3 ;; esac
for one in "$@"; do source=$one; done
cp "$source" "$4"
"""


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def compiler(tmp_path: Path, calls: Path) -> Path:
    program = tmp_path / "program"
    program.write_text(COMPILER.format(calls=calls))
    program.chmod(0o700)
    return program


def compiled(compiler: Path, text: str, flag: str = "-O3") -> tuple[int, str]:
    """The exit code, and what was made of this source in a folder of its own."""
    folder = Path(tempfile.mkdtemp(dir=compiler.parent))
    source, made = folder / "source.cpp", folder / "made.o"
    source.write_text(text)
    arguments = (compile_once.__file__, compiler.parent, compiler, flag, "-c", "-o", made, source)
    done = subprocess.run([sys.executable, *map(str, arguments)], check=False)
    return done.returncode, made.read_text() if made.exists() else ""


@pytest.mark.skipif(sys.platform == "win32", reason="it is a shell's")
def test_what_is_the_same_is_compiled_once(compiler: Path, calls: Path) -> None:
    assert [compiled(compiler, text) for text in ("int a;", "int b;", "int a;")] == [
        (0, "int a;"), (0, "int b;"), (0, "int a;")
    ]  # fmt: skip
    assert len(calls.read_text().splitlines()) == 2
    assert compiled(compiler, "int a;", "-O2") == (0, "int a;")
    assert len(calls.read_text().splitlines()) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="it is a shell's")
@pytest.mark.parametrize(("text", "flag", "code"), [("int a;", "-wrong", 3), ('#include "a.h"', "-O3", 0)])
def test_a_failure_and_a_source_with_files_beside_it_are_not_remembered(
    text: str, flag: str, code: int, compiler: Path, calls: Path
) -> None:
    assert [compiled(compiler, text, flag)[0] for _ in range(2)] == [code, code]
    assert len(calls.read_text().splitlines()) == 2
