"""Ring: the newest steps, rows and lives, in memory that two processes share. Knows counters and columns; no engine.

One writes and one reads, and neither waits for the other. Whatever is written is announced before and confirmed after,
by counters that only grow: a reader takes what is confirmed, copies it, and then drops what the writer had announced to
overwrite meanwhile. So it stays whole when the writer is killed in the middle of a step.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ridgeline.core.flight import Lives, Rows, Steps
from ridgeline.core.types import Ints, StepRecord
from ridgeline.engine.engine import Life
from ridgeline.engine.handover import SharedFile

STEPS, ROWS, LIVES = 4096, 262_144, 16_384
_STEPS_BEGUN, _STEPS_DONE, _ROWS_BEGUN, _LIVES_BEGUN, _LIVES_DONE = range(5)
_HEAD_BYTES = 64
_STEP, _LIFE = struct.Struct("12q"), struct.Struct("4q")
_ROW = np.dtype([("key", "i8"), ("start", "i4"), ("count", "i4"), ("made", "i4"), ("phase", "i1")])
_TRIES = 3


class Ring:
    """file: of size_of() bytes, zeros at first; whoever has it has the same ring.

    A step's rows lie in one piece: where they would pass the end of the ring they begin it anew.
    """

    def __init__(self, file: int, steps: int = STEPS, rows: int = ROWS, lives: int = LIVES) -> None:
        self._file, self._sizes = file, (steps, rows, lives)
        self._map = memoryview(mmap.mmap(file, size_of(steps, rows, lives)))
        self._head = self._map[:_HEAD_BYTES].cast("q")
        steps_end = _HEAD_BYTES + steps * _STEP.size
        lives_end = steps_end + lives * _LIFE.size
        self._steps: Ints = np.frombuffer(self._map[_HEAD_BYTES:steps_end], np.int64).reshape(steps, -1)
        self._lives: Ints = np.frombuffer(self._map[steps_end:lives_end], np.int64).reshape(lives, -1)
        self._lives_at = steps_end
        self._rows: list[np.ndarray[Any, np.dtype[Any]]] = []
        at = lives_end
        for name in _ROW.names or ():
            kind = _ROW[name]
            self._rows.append(np.frombuffer(self._map[at : at + rows * kind.itemsize], kind))
            at += rows * kind.itemsize

    @staticmethod
    def create(steps: int = STEPS, rows: int = ROWS, lives: int = LIVES) -> Ring:
        """In a file without a name, so nothing of it is left however its processes end."""
        size = size_of(steps, rows, lives)
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("ridgeline-recorder")
        else:
            with tempfile.TemporaryFile() as named:
                file = os.dup(named.fileno())
        os.truncate(file, size)
        return Ring(file, steps, rows, lives)

    def __del__(self) -> None:
        os.close(self._file)

    def __reduce__(self) -> tuple[Callable[..., Ring], tuple[Any, ...]]:
        """To a process of this one's."""
        return _handed, (SharedFile(self._file), *self._sizes)

    def add_step(self, step: StepRecord) -> None:
        head, at, (most_steps, most_rows, _) = self._head, self._head[_ROWS_BEGUN], self._sizes
        count, serial = step.rows, head[_STEPS_BEGUN]
        place = at % most_rows
        if place + count > most_rows:
            at, place = at + most_rows - place, 0
        head[_STEPS_BEGUN], head[_ROWS_BEGUN] = serial + 1, at + count
        end = place + count
        key, start, counts, made, phase = self._rows
        key[place:end] = step.keys
        start[place:end] = step.starts
        counts[place:end] = step.counts
        made[place:end] = step.made
        phase[place:end] = step.phases
        _STEP.pack_into(
            self._map, _HEAD_BYTES + serial % most_steps * _STEP.size,
            step.serial, step.launched_ns, step.collected_ns, count, step.tokens, step.positions, step.padding,
            step.waiting, step.kv_blocks, step.horizon, step.stall, at,
        )  # fmt: skip
        head[_STEPS_DONE] = serial + 1

    def add_lives(self, lives: Iterable[Life]) -> None:
        head, most = self._head, self._sizes[2]
        for life in lives:
            at = head[_LIVES_BEGUN]
            head[_LIVES_BEGUN] = at + 1
            _LIFE.pack_into(self._map, self._lives_at + at % most * _LIFE.size, *life)
            head[_LIVES_DONE] = at + 1

    def newest(self, steps: int) -> tuple[Steps, Rows, Lives]:
        """Of as many steps as there are, and all lives. Where the writer was faster three times there are fewer."""
        for _ in range(_TRIES):
            found, complete = self._copied(steps)
            if complete:
                break
        return found

    def _copied(self, wanted: int) -> tuple[tuple[Steps, Rows, Lives], bool]:
        head, (most_steps, most_rows, most_lives) = self._head, self._sizes
        done, lives_done = head[_STEPS_DONE], head[_LIVES_DONE]
        held = done - max(0, head[_STEPS_BEGUN] - most_steps)
        first = done - max(0, min(wanted, held))
        table = self._steps[np.arange(first, done) % most_steps]
        within = table[:, -1] >= head[_ROWS_BEGUN] - most_rows
        table, first = table[within], first + int(np.count_nonzero(~within))
        counts, begins = table[:, 3], table[:, -1]
        before = np.cumsum(counts) - counts
        where = (np.arange(int(counts.sum())) + np.repeat(begins - before, counts)) % most_rows
        rows = [column[where] for column in self._rows]
        first_life = max(0, head[_LIVES_BEGUN] - most_lives)
        lives = self._lives[np.arange(first_life, lives_done) % most_lives]
        # What was announced by now may have been overwritten while it was copied.
        lost = (np.arange(first, done) < head[_STEPS_BEGUN] - most_steps) | (begins < head[_ROWS_BEGUN] - most_rows)
        stays = np.repeat(~lost, counts)
        lives = lives[max(0, head[_LIVES_BEGUN] - most_lives - first_life) :]
        found = (
            Steps(*table[~lost, :-1].T),
            Rows(*(column[stays] for column in rows)),
            Lives(*lives.T),
        )
        return found, not lost.any() and held >= min(done, most_steps - 1)


def size_of(steps: int, rows: int, lives: int) -> int:
    return _HEAD_BYTES + steps * _STEP.size + lives * _LIFE.size + rows * _ROW.itemsize


def _handed(file: SharedFile, steps: int, rows: int, lives: int) -> Ring:
    return Ring(file.number, steps, rows, lives)
