"""A recording travels as JSON and comes back the same; what is no recording is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridgeline.core.errors import ConfigError
from ridgeline.core.flight import (
    ADMITTED,
    ARRIVED,
    BLOCKS,
    DECODE,
    ENDED,
    PREFILL,
    Lives,
    Recording,
    Rows,
    Steps,
)
from ridgeline.core.flightfile import decoded, read_recording
from ridgeline.core.types import Ints

T0 = 10**15 + 123  # a machine that was started eleven days ago


def ints(*values: int) -> Ints:
    return np.array(values, np.int64)


RECORDING = Recording(
    model="demo",
    device="a CPU",
    batching="continuous",
    block_size=4,
    num_blocks=64,
    made_unix_s=1.7e9,
    steps=Steps(
        serial=ints(7, 8, 9),
        launched_ns=T0 + ints(1_000, 2_501, 4_002),
        collected_ns=T0 + ints(2_400, 3_999, 5_000),
        rows=ints(1, 2, 1),
        tokens=ints(1, 2, 1),
        positions=ints(5, 2, 1),
        padding=ints(0, 1, 0),
        waiting=ints(0, 1, 0),
        kv_blocks=ints(2, 3, 1),
        horizon=ints(1, 1, 4),
        stall=ints(0, BLOCKS, 0),
    ),
    rows=Rows(
        key=ints(1, 1, 2, 2), start=ints(0, 5, 0, 3), count=ints(5, 1, 3, 1), made=ints(1, 1, 1, 1),
        phase=ints(PREFILL, DECODE, PREFILL, DECODE),
    ),
    lives=Lives(
        key=ints(1, 1, 2, 2, 1), at_ns=T0 + ints(0, 900, 1_200, 2_450, 3_999), serial=ints(6, 7, 7, 8, 8),
        what=ints(ARRIVED, ADMITTED, ARRIVED, ADMITTED, ENDED),
    ),
    names={1: "cmpl-a-0"},
)  # fmt: skip


def same(one: Recording, other: Recording) -> bool:
    return one.json() == other.json()


def test_it_comes_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(RECORDING.encoded())
    back = read_recording(path)
    assert same(back, RECORDING)
    assert back.steps.launched_ns.tolist() == RECORDING.steps.launched_ns.tolist(), "to the nanosecond"
    assert back.names == {1: "cmpl-a-0"}
    assert not back.rows.key.flags.writeable


def test_an_empty_one_too() -> None:
    empty = Recording("m", "d", "one", 1, 1, 0.0, Steps(), Rows(), Lives(), "crash", "out of memory")
    assert same(decoded(empty.encoded()), empty)
    assert same(empty.newest(5), empty)


def test_the_newest_steps_have_their_rows_and_the_lives_of_whoever_was_there() -> None:
    last = RECORDING.newest(1)
    assert last.steps.serial.tolist() == [9]
    assert last.rows.key.tolist() == [2]
    assert last.lives.key.tolist() == [2, 2], "request 1 had ended"
    assert RECORDING.newest(2).keys() == [1, 2]
    assert same(RECORDING.newest(512), RECORDING)
    first = RECORDING.between(0, 1)
    assert first.rows.key.tolist() == [1]
    assert first.lives.key.tolist() == [1, 1, 2], "what came later is not in it"
    assert RECORDING.step_of.tolist() == [0, 1, 1, 2]
    assert RECORDING.offsets.tolist() == [0, 1, 3, 4]


def test_codes_are_read_by_their_names() -> None:
    value = RECORDING.json()
    value["phases"] = ["recomputed", "decode", "prefill"]
    assert decoded(json.dumps(value).encode()).rows.phase.tolist() == [2, DECODE, 2, DECODE]


def broken(**changes: Any) -> bytes:
    value = RECORDING.json()
    for path, change in changes.items():
        *way, name = path.split("__")
        inner = value
        for step in way:
            inner = inner[step]
        inner[name] = change
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"kind": NaN}', "NaN is not a number"),
        (b"[]", "not a recording"),
        (b"{}", "not a recording"),
        (broken(version=2), "version 2; only 1"),
        (broken(model=5), "model must be a string"),
        (broken(reason="boredom"), "reason must be asked or crash"),
        (broken(origin_ns=-1), "origin_ns must be a whole number"),
        (broken(made_unix_s=True), "made_unix_s must be a number"),
        (broken(steps=[]), "steps must be an object"),
        (broken(steps__serial=None), "steps.serial must be a list"),
        (broken(steps__serial=[1]), "equally long"),
        (broken(steps__rows=[1, 2, 2]), "steps.rows must add up to the 4 rows"),
        (broken(steps__rows=[-1, 4, 1]), "steps.rows must add up"),
        (broken(steps__tokens=[1, 2, True]), "steps.tokens must hold whole numbers"),
        (broken(steps__tokens=[1, 2, 1.5]), "steps.tokens must hold whole numbers"),
        (broken(steps__tokens=[1, 2, 10**30]), "steps.tokens must hold numbers up to"),
        (broken(steps__launched_us=["a", 1, 2]), "steps.launched_us must hold numbers"),
        (broken(steps__launched_us=[1e300, 1, 2]), "steps.launched_us must hold numbers up to"),
        (broken(rows__phase=[0, 1, 2, 3]), "rows.phase must hold codes into phases"),
        (broken(lives__what=[0, 0, 0, 0, -1]), "lives.what must hold codes into whats"),
        (broken(phases=["prefill", "dreaming", "decode"]), "dreaming"),
        (broken(phases=5), "phases must be a list of strings"),
        (broken(names={"x": "y"}), "names must have keys that are whole numbers"),
        (broken(names={"1": 2}), "names must be an object of strings"),
    ],
)
def test_what_is_no_recording_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(ConfigError, match="here: ") as caught:
        decoded(data, "here")
    assert complaint in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: cannot be read"):
        read_recording(tmp_path / "none.json")
