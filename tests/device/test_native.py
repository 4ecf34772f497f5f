"""Native code: C++ with OpenMP beside torch, in one process and on one runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.device import jit, openmp
from ridgeline.device.jit import CPP, CannotBuild, Compiler

COUNT = """
#include <omp.h>
extern "C" int threads(int asked) {
    int found = 0;
#pragma omp parallel num_threads(asked) reduction(+ : found)
    found += 1;
    return found;
}
"""

IN_A_NEW_PROCESS = """
import sys
from pathlib import Path
from ridgeline.device import jit, openmp
library = jit.load(Path(sys.argv[1]).read_text(), Path(sys.argv[2]), jit.Compiler.find_cpp())
import torch
torch.set_num_threads(2)
torch.ones(1 << 20).exp()
torch.ones(64, 64) @ torch.ones(64, 64)
print(library.threads(3), len(openmp.loaded()))
"""


@pytest.fixture
def compiler() -> Compiler:
    try:
        return Compiler.find_cpp()
    except CannotBuild as error:
        pytest.skip(str(error))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what is loaded")
def test_a_process_has_one_openmp_runtime(tmp_path: Path, compiler: Compiler) -> None:
    """Whether the library was compiled in this process or found in the cache."""
    source = tmp_path / "count.cpp"
    source.write_text(COUNT)
    for _ in range(2):
        told = subprocess.run(
            [sys.executable, "-c", IN_A_NEW_PROCESS, source, tmp_path], capture_output=True, text=True, check=True
        )
        assert told.stdout.split() == ["3", "1"]


def test_torchs_own_runtime_is_found_in_the_maps_or_in_its_folder(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r--p 00000000 08:01 1    /usr/lib/libc.so.6\n7f01-7f02 rw-p 00000000 00:00 0\n"
        "7f02-7f03 r--p 00000000 08:01 2    /a b/torch.libs/libgomp-24e2ab19.so.1.0.0\n"
        "7f03-7f04 r-xp 00000000 08:01 2    /a b/torch.libs/libgomp-24e2ab19.so.1.0.0\n"
        "7f04-7f05 r-xp 00000000 08:01 3    /opt/libgompertz.so\n"
    )
    assert openmp.loaded(maps) == [Path("/a b/torch.libs/libgomp-24e2ab19.so.1.0.0")]
    nowhere, folder = tmp_path / "none", tmp_path / "torch"
    (folder / "lib").mkdir(parents=True)
    assert openmp.runtime(nowhere, folder) is None
    (folder / "lib" / "libgomp.so.1").touch()
    assert openmp.runtime(nowhere, folder) == folder / "lib" / "libgomp.so.1"


def test_a_source_is_one_text_with_what_it_includes(tmp_path: Path) -> None:
    (tmp_path / "two.h").write_text("int two = 2;\n")
    (tmp_path / "one.h").write_text('#pragma once\n#include "two.h"\nint one = 1;\n')
    (tmp_path / "all.cpp").write_text('#include <cstdint>\n#include "one.h"\n#include "two.h"\nint all = one + two;\n')
    assert jit.source_of(tmp_path / "all.cpp").split("\n") == [
        "#include <cstdint>", "int two = 2;", "", "int one = 1;", "", "", "int all = one + two;", ""
    ]  # fmt: skip


def test_without_a_compiler_it_says_what_to_install() -> None:
    with pytest.raises(CannotBuild, match=r"no C\+\+ compiler; install one .*apt install g\+\+"):
        Compiler.find(lambda _name: None, CPP)


def test_an_installed_package_has_the_sources() -> None:
    """What a wheel takes is whatever lies in the package; a file that git ignores would be missing there."""
    sources = Path(jit.__file__).parents[1] / "ops" / "native"
    assert {path.name for path in sources.iterdir()} >= {"linear.cpp", "dots.h", "pack.h", "tiles.h", "vectors.h"}
    assert '#include "' not in jit.source_of(sources / "linear.cpp")
