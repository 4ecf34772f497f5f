"""The team: every item of a call is done once, by whoever is free."""

from __future__ import annotations

import ctypes
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ridgeline.device import jit
from ridgeline.device.jit import CPP, CannotBuild, Compiler
from ridgeline.device.team import team

SOURCE = """
#include "team.h"
using namespace ridgeline;

// Adds 1 to the cell of every item, and to that of every thread for each of its runs.
extern "C" void mark(Team *team, int64_t count, int64_t least, int64_t most, int32_t *items, int32_t *runs) {
    share(team, count, {least, most}, [=](Turn &turn) {
        while (turn.next()) {
            runs[turn.thread]++;
            for (int64_t at = turn.begin; at < turn.end; at++) items[at]++;
        }
    });
}
"""
MOST_THREADS = 9


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    try:
        compiler = Compiler.find(language=CPP)
    except CannotBuild as error:
        pytest.skip(str(error))
    source = tmp_path_factory.mktemp("team") / "mark.cpp"
    source.write_text(SOURCE)
    made = jit.load(jit.source_of(source), None, compiler)
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    made.mark.argtypes, made.mark.restype = (pointer, number, number, number, pointer, pointer), None
    return made


def marked(library: ctypes.CDLL, threads: int | None, count: int, least: int = 1, most: int = 1 << 40) -> list[int]:
    """Runs that each thread took, once it is sure that every item was done once."""
    items, runs = np.zeros(max(count, 1), np.int32), np.zeros(MOST_THREADS, np.int32)
    at = None if threads is None else team(library, threads)
    library.mark(at, count, least, most, items.ctypes.data, runs.ctypes.data)
    assert (items[:count] == 1).all(), (threads, count, least, most)
    return list(map(int, runs))


def test_every_item_is_done_once(library: ctypes.CDLL) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(2000):
        least = draw.randrange(1, 20)
        marked(
            library, draw.randrange(1, MOST_THREADS), draw.choice([0, 1, 2, 3, 17, 500, 4000]), least,
            least + draw.choice([0, 5, 1000]),
        )  # fmt: skip


def test_without_a_team_the_caller_does_all_in_one_run(library: ctypes.CDLL) -> None:
    assert marked(library, None, 100) == [1] + [0] * (MOST_THREADS - 1)


def test_what_is_not_worth_a_meeting_the_caller_does_alone(library: ctypes.CDLL) -> None:
    assert marked(library, 4, 8, least=8) == [1] + [0] * (MOST_THREADS - 1)


def test_others_help(library: ctypes.CDLL) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if sum(marked(library, 3, 1_000_000, most=1000)[1:]) > 0:
            return
    pytest.fail("nobody else took an item of any call for half a minute")


def test_callers_at_the_same_time_do_not_disturb_each_other(library: ctypes.CDLL) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: sum(marked(library, 3, 997)), range(400)))
    assert min(done) >= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_call_does_not_wait_for_threads_that_never_begin(library: ctypes.CDLL) -> None:
    """A child has the caller's thread alone."""
    marked(library, 3, 1000)
    child = os.fork()
    if child == 0:
        os._exit(0 if sum(marked(library, 3, 1000)[1:]) == 0 else 1)
    until = time.monotonic() + 60
    while True:
        over, status = os.waitpid(child, os.WNOHANG)
        if over:
            break
        if time.monotonic() > until:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the call waits for ever")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(status) == 0


def test_libraries_share_a_team(library: ctypes.CDLL, tmp_path: Path) -> None:
    source = tmp_path / "other.cpp"
    source.write_text(SOURCE + "// another library\n")
    other = jit.load(jit.source_of(source), None, Compiler.find(language=CPP))
    assert team(other, 3) == team(library, 3)
