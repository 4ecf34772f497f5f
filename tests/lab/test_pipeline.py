"""The diagram of a recording says of every request in every step what it was doing."""

from __future__ import annotations

import io
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ridgeline.core.errors import ConfigError
from ridgeline.core.flight import (
    ADMITTED,
    ARRIVED,
    BLOCKS,
    DECODE,
    ENDED,
    FIRST_TOKEN,
    PREEMPTED,
    PREFILL,
    RECOMPUTED,
    SLOTS,
    Lives,
    Recording,
    Rows,
    Steps,
)
from ridgeline.core.types import Ints
from ridgeline.lab.pipeline import svg, terminal
from ridgeline.lab.pipeline.cells import KINDS, Pipeline, Summary


def ints(*values: int) -> Ints:
    return np.array(values, np.int64)


# Step i is launched at 100 i and collected at 100 i + 90. Request 1 is preempted before step 4; 2 sits out step 3; 3
# waits for a seat until step 5 and is aborted in step 6, whose row is dropped; 4 never gets one.
ROWS = [
    (1, 1, PREFILL), (1, 2, PREFILL),
    (2, 1, DECODE), (2, 2, DECODE),
    (3, 1, DECODE),
    (4, 2, DECODE),
    (5, 1, RECOMPUTED), (5, 2, DECODE), (5, 3, PREFILL),
    (6, 1, DECODE), (6, 3, DECODE),
]  # fmt: skip
LIVES = [
    (1, 10, ARRIVED), (1, 95, ADMITTED), (2, 20, ARRIVED), (2, 96, ADMITTED), (1, 190, FIRST_TOKEN),
    (3, 250, ARRIVED), (1, 395, PREEMPTED), (1, 495, ADMITTED), (2, 590, ENDED), (3, 497, ADMITTED), (3, 650, ENDED),
    (1, 690, ENDED), (4, 610, ARRIVED),
]  # fmt: skip
COUNT = 6
RECORDING = Recording(
    model="demo <1>", device="a CPU", batching="continuous", block_size=4, num_blocks=9, made_unix_s=1.0,
    steps=Steps(
        serial=ints(*range(1, 7)), launched_ns=100 * ints(*range(1, 7)), collected_ns=100 * ints(*range(1, 7)) + 90,
        rows=ints(*(sum(step == i for step, _, _ in ROWS) for i in range(1, 7))), tokens=ints(2, 2, 1, 1, 3, 1),
        positions=ints(4, 2, 2, 2, 4, 2), padding=ints(0, 0, 1, 1, 0, 0), waiting=ints(0, 1, 2, 2, 0, 1),
        kv_blocks=ints(1, 2, 3, 3, 3, 2), horizon=ints(1, 1, 1, 1, 1, 1), stall=ints(0, SLOTS, SLOTS, BLOCKS, 0, SLOTS),
    ),
    rows=Rows(
        key=ints(*(key for _, key, _ in ROWS)), start=ints(*(0 for _ in ROWS)), count=ints(*(1 for _ in ROWS)),
        made=ints(*(1 for _ in ROWS)), phase=ints(*(phase for _, _, phase in ROWS)),
    ),
    lives=Lives(
        key=ints(*(key for key, _, _ in LIVES)), at_ns=ints(*(at for _, at, _ in LIVES)),
        serial=ints(*(0 for _ in LIVES)), what=ints(*(what for _, _, what in LIVES)),
    ),
    names={1: "cmpl-<a>\x1b[2J-0", 2: "chatcmpl-b-0"},
)  # fmt: skip


def words(pipeline: Pipeline, key: int) -> list[str]:
    return [KINDS[cell].name for cell in pipeline.cells[pipeline.keys.index(key)].tolist()]


def test_every_cell_says_what_a_request_was_doing() -> None:
    pipeline = Pipeline.of(RECORDING)
    assert words(pipeline, 1) == ["prefill", "decode", "decode", "preempted", "recomputed", "retired"]
    assert words(pipeline, 2) == ["prefill", "decode", "stalled", "decode", "retired", "none"]
    assert words(pipeline, 3) == ["none", "queued", "queued", "queued", "prefill", "retired"]
    assert words(pipeline, 4) == ["none", "none", "none", "none", "none", "queued"]


def test_a_part_of_a_recording_is_drawn_the_same() -> None:
    whole, part = Pipeline.of(RECORDING), Pipeline.of(RECORDING.between(2, 5))
    for key in part.keys:
        assert words(part, key) == words(whole, key)[2:5]


def test_one_request_is_found_by_its_id_its_beginning_or_its_key() -> None:
    for asked in ("chatcmpl-b-0", "chatcmpl-b", "2"):
        assert Pipeline.of(RECORDING, asked).keys == (2,)
    with pytest.raises(ConfigError, match="nobody of that id"):
        Pipeline.of(RECORDING, "chatcmpl-z")


def test_it_counts() -> None:
    summary = Summary.of(Pipeline.of(RECORDING))
    assert (summary.tokens, summary.tokens_per_step, summary.bubbles) == (10, 10 / 6, 2 / 16)
    assert summary.stalls == {"slots": 3, "blocks": 1}
    assert (summary.stalled_cells, summary.queued_cells) == (1, 4)


def test_a_terminal_without_colour_shows_plain_characters_and_no_control_ones() -> None:
    out = io.StringIO()
    console = Console(file=out, width=60, no_color=True, legacy_windows=False)
    terminal.show(console, Pipeline.of(RECORDING), room=4)
    text = out.getvalue()
    assert "\x1b" not in text
    assert text.isascii() or "\ufffd" in text
    assert [line[20:] for line in text.splitlines() if line.startswith("chatcmpl-b-0")] == ["#=!=", "| "]
    assert "kept out             ssb" in text, "what somebody lacked, below the step"


def test_the_svg_is_well_formed_and_knows_light_and_dark() -> None:
    drawn = svg.draw(Pipeline.of(RECORDING))
    root = ET.fromstring(drawn)
    assert "prefers-color-scheme: dark" in drawn
    spans = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "chatcmpl-b-0: seated, but not in the step, step 3" in spans
    assert "slots" in spans


def test_the_command_draws_a_file_and_refuses_what_is_none(tmp_path: Path) -> None:
    path, out = tmp_path / "r.json", tmp_path / "r.svg"
    path.write_bytes(RECORDING.encoded())

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ridgeline", "pipeline", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    shown = run(str(path), "--steps=1:3")
    assert shown.returncode == 0, shown.stderr
    assert "2 steps, median 0.09 us" in shown.stdout
    drawn = run(str(path), "--svg", str(out))
    assert drawn.returncode == 0, drawn.stderr
    assert out.read_text("utf-8").startswith("<svg")
    saved = run(str(path), "--html", str(page := tmp_path / "r.html"))
    assert saved.returncode == 0, saved.stderr
    assert '"kind":"ridgeline-recording"' in page.read_text("utf-8")
    for words in (
        (str(out),),
        (str(path), "--steps", "x"),
        (str(path), "--steps=9:"),
        (str(path), "--request", "z"),
        (str(path), "--html", str(page), "--request", "1"),
    ):
        refused = run(*words)
        assert (refused.returncode, refused.stderr.splitlines()[0][:7]) == (2, "error: ")
