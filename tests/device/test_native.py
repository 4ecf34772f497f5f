"""Native code: C++ beside torch, in one process and with one team of threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.device import jit
from ridgeline.device.jit import CPP, CannotBuild, Compiler

IN_A_NEW_PROCESS = """
import sys
from pathlib import Path
import torch
from ridgeline.attention import native
from ridgeline.device import jit
from ridgeline.ops import dense, quantised

cache = Path(sys.argv[1])
for source in (native.SOURCE, dense.SOURCE, quantised.SOURCE):
    jit.load(jit.source_of(source), cache, jit.Compiler.find(language=jit.CPP))
torch.set_num_threads(2)
torch.ones(1 << 20).exp()
torch.ones(64, 64) @ torch.ones(64, 64)
names = {Path(line.split()[-1]).name for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
print(sum("omp" in name for name in names), sum(name.endswith(".so") and len(name) == 27 for name in names))
"""


@pytest.fixture
def compiler() -> Compiler:
    try:
        return Compiler.find(language=CPP)
    except CannotBuild as error:
        pytest.skip(str(error))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what is loaded")
@pytest.mark.usefixtures("compiler")
def test_native_code_brings_no_openmp(tmp_path: Path) -> None:
    """Two runtimes would fight for the cores: torch's stays the only one."""
    told = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS, tmp_path], capture_output=True, text=True, check=True
    )
    openmp, loaded = told.stdout.split()
    assert (int(openmp) <= 1, loaded) == (True, "3")


def test_a_source_is_one_text_with_what_it_includes(tmp_path: Path) -> None:
    (tmp_path / "two.h").write_text("int two = 2;\n")
    (tmp_path / "one.h").write_text('#pragma once\n#include "two.h"\nint one = 1;\n')
    (tmp_path / "all.cpp").write_text('#include <cstdint>\n#include "one.h"\n#include "two.h"\nint all = one + two;\n')
    assert jit.source_of(tmp_path / "all.cpp").split("\n") == [
        "#include <cstdint>", "int two = 2;", "", "int one = 1;", "", "", "int all = one + two;", ""
    ]  # fmt: skip


def test_a_source_may_include_what_all_share(tmp_path: Path) -> None:
    (tmp_path / "all.cpp").write_text('#include "team.h"\n')
    assert "class Team {" in jit.source_of(tmp_path / "all.cpp")


def test_without_a_compiler_it_says_what_to_install() -> None:
    with pytest.raises(CannotBuild, match=r"no C\+\+ compiler; install one .*apt install g\+\+"):
        Compiler.find(lambda _name: None, CPP)


def test_an_installed_package_has_the_sources() -> None:
    """What a wheel takes is whatever lies in the package; a file that git ignores would be missing there."""
    sources = Path(jit.__file__).parents[1] / "ops" / "native"
    assert {path.name for path in sources.iterdir()} >= {"linear.cpp", "dots.h", "pack.h", "tiles.h", "vectors.h"}
    assert '#include "' not in jit.source_of(sources / "linear.cpp")
