"""What every test starts from: one thread for torch, Ctrl-C as a terminal has it, compilers that do nothing twice, and
a place for pictures."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]

DOCS = Path(__file__).parent.parent / "docs"

# Small models gain nothing from two threads, and tests that run side by side lose much.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without a GPU, kernels written in Triton run through its interpreter; it must be told before anybody imports it.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")
# A shell that starts the suite in the background has it ignore Ctrl-C, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", action="store_true", help="tests that take pictures write them into docs/, not away")


def pytest_configure(config: pytest.Config) -> None:
    if sys.platform == "win32" or hasattr(config, "workerinput"):  # a worker is started with what is set here
        return
    from tests import compile_once

    folder = Path(tempfile.mkdtemp(prefix="ridgeline-compiled-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    compile_once.install(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first: at the end it would run alone, while the other workers have nothing left to do."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def picture(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Where a test writes the picture of that name: `docs/NAME` with --pictures, a folder of its own without."""
    folder = DOCS if request.config.getoption("--pictures") else tmp_path
    return lambda name: folder / name


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`ridgeline` with these arguments in this process, for what is refused before anything is measured: a process of
    its own would spend two seconds on nothing but importing torch."""
    from ridgeline import cli

    monkeypatch.setenv("GOMP_SPINCOUNT", os.environ.get("GOMP_SPINCOUNT", "10000"))  # main sets it, this takes it back

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["ridgeline", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, *capsys.readouterr())

    return run
