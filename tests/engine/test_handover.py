"""What is handed over arrives with its open files, and needs no socket in the file system."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile

import pytest

from ridgeline.engine.handover import SharedFile, hand_over, taken_over


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are not handed over there")
def test_an_object_arrives_with_its_files_in_order_and_what_is_sent_after_it_stays_whole() -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        first.write(b"one")
        second.write(b"two")
        first.flush()
        second.flush()
        hand_over({"b": SharedFile(second.fileno()), "text": "so", "a": SharedFile(first.fileno())}, ours, os.getpid())
        ours.send_bytes(b"after it")
        made = taken_over(theirs)()
        assert made["text"] == "so"
        for name, holds in (("a", b"one"), ("b", b"two")):
            assert os.pread(made[name].number, 9, 0) == holds
            os.close(made[name].number)
        assert theirs.recv_bytes() == b"after it"


def test_an_end_instead_of_an_object_is_one() -> None:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    ours.send_bytes(b"")
    with pytest.raises(EOFError):
        taken_over(theirs)
    ours.close()
    with pytest.raises(EOFError):
        taken_over(theirs)
