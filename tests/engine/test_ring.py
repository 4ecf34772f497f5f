"""Of what is written to the ring a reader in another process sees the newest, whole, whatever the writer is doing."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from ridgeline.core.flight import Lives, Rows, Steps
from ridgeline.core.types import StepRecord
from ridgeline.engine.ring import Ring, size_of

T0 = 5 * 10**15


def record(serial: int, rows: int) -> StepRecord:
    """Everything in it follows from the serial and the number of rows, so that a torn one shows."""
    keys = np.arange(rows) + serial * 1000
    return StepRecord(
        serial, T0 + serial * 10, T0 + serial * 10 + 9, rows, rows, 2 * rows, rows, serial % 7, serial % 11, 1,
        serial % 6, keys, keys % 97, np.full(rows, 1 + serial % 5), keys % 2, keys % 3,
    )  # fmt: skip


def verify(found: tuple[Steps, Rows, Lives], last: int | None = None) -> list[int]:
    """Serials, one after another, with exactly the rows that were written."""
    steps, rows, lives = found
    serials: list[int] = steps.serial.tolist()
    assert serials == list(range(serials[0], serials[0] + len(serials))) if serials else True
    assert last is None or not serials or serials[-1] == last
    at = 0
    for i, (serial, count) in enumerate(zip(serials, steps.rows.tolist(), strict=True)):
        want = record(serial, count)
        assert tuple(int(getattr(steps, name)[i]) for name in ("launched_ns", "collected_ns", "tokens")) == (
            want.launched_ns, want.collected_ns, want.tokens,
        )  # fmt: skip
        for got, wanted in ((rows.key, want.keys), (rows.start, want.starts), (rows.count, want.counts)):
            assert got[at : at + count].tolist() == wanted.tolist()
        assert rows.made[at : at + count].tolist() == want.made.tolist()
        assert rows.phase[at : at + count].tolist() == want.phases.tolist()
        at += count
    assert at == len(rows)
    assert (lives.at_ns - T0 == lives.key).all()
    assert (np.diff(lives.key) == 1).all()
    return serials


def test_an_empty_ring_has_nothing() -> None:
    assert [len(columns) for columns in Ring.create(4, 8, 4).newest(100)] == [0, 0, 0]


def test_it_keeps_the_newest_within_its_bounds() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(30):
        ring = Ring.create(rng.randint(2, 12), rng.randint(8, 40), rng.randint(2, 9))
        written = 0
        for serial in range(rng.randint(1, 60)):
            ring.add_step(record(serial, rng.randint(1, 8)))
            for _ in range(rng.randint(0, 2)):
                ring.add_lives([(written, T0 + written, serial, written % 5)])
                written += 1
            wanted = rng.randint(0, 14)
            found = ring.newest(wanted)
            assert len(verify(found, serial)) <= wanted
            assert written == 0 or not len(found[2]) or found[2].key[-1] == written - 1


def test_many_rows_push_out_old_steps() -> None:
    ring = Ring.create(steps=100, rows=10, lives=2)
    for serial in range(20):
        ring.add_step(record(serial, 4))
    assert verify(ring.newest(100)) == [18, 19], "ten rows hold two steps of four: rows of a step lie in one piece"


def test_memory_is_bounded() -> None:
    assert size_of(4096, 262_144, 16_384) < 7 * 2**20


def _write(ring: Ring, connection: Connection) -> None:
    for serial in itertools.count():
        ring.add_step(record(serial, 1 + serial % 8))
        ring.add_lives([(serial, T0 + serial, serial, 0)])
        if serial == 50:
            connection.send(None)


def test_a_reader_beside_a_writer_and_after_its_death() -> None:
    ring = Ring.create(steps=64, rows=400, lives=32)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    writer = context.Process(target=_write, args=(ring, theirs), daemon=True)
    writer.start()
    try:
        ours.recv()
        newest = 0
        for _ in range(300):
            serials = verify(ring.newest(40))
            assert serials, "the newest steps are always there"
            assert serials[-1] >= newest
            newest = serials[-1]
    finally:
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    serials = verify(ring.newest(40))
    assert len(serials) == 40
    assert serials[-1] >= newest
    assert verify(ring.newest(40)) == serials


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_nothing_of_it_is_left_on_disk() -> None:
    ring = Ring.create(4, 8, 4)
    links = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists() or entry.is_symlink()]
    assert any("ridgeline-recorder" in link and "deleted" in link for link in links)
    del ring
