"""The course: its questions have answers that can be reckoned, its texts name commands that run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.build import EngineOrder
from ridgeline.core.ceilings import to_json
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.core.records import write_run
from ridgeline.device.choose import choose
from ridgeline.device.kept import ceilings_path
from ridgeline.lab.learn import scores, serving
from ridgeline.lab.learn.chapter import Place, judged
from ridgeline.lab.learn.course import CHAPTERS, chapter
from ridgeline.lab.rig import Workbench
from tests.lab.machines import MACHINE
from tests.tiny_gpt2 import write_tiny_gpt2

ROOT = Path(__file__).parent.parent.parent
COURSE = ROOT / "docs" / "learn"
COMMANDS_S = 120
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)


def commands(page: Path) -> list[str]:
    lines = "\n".join(CONSOLE.findall(page.read_text())).splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.strip()]


EVERY = [(page.name, line) for page in sorted(COURSE.glob("*.md")) for line in commands(page)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_gpt2(folder)
    config = Config.of(model=str(folder), device="cpu", dtype="float32", threads=1)
    bench = Workbench.open(EngineOrder(config, "tiny", folder), lambda *_: None)
    return Place(bench, tmp_path_factory.mktemp("cache"), lambda *_: None)


def test_every_chapter_has_a_page_that_runs_its_experiment() -> None:
    for one in CHAPTERS:
        text = (COURSE / one.page).read_text()
        assert text.startswith(f"# {one.number}. {one.title}"), one.page
        assert any(line.startswith(f"ridgeline learn {one.number}") for line in commands(COURSE / one.page)), one.page
        assert f"]({one.page})" in (COURSE / "README.md").read_text(), one.page


def test_the_page_asks_what_the_course_asks() -> None:
    asked = json.loads((ROOT / "src" / "ridgeline" / "server" / "web" / "course.json").read_text("utf-8"))
    assert [(one["number"], one["title"], one["question"], one["unit"], one["hint"]) for one in asked] == [
        (one.number, one.title, one.question, one.unit, one.hint) for one in CHAPTERS
    ]
    assert all(one["answers"] and (ROOT / one["page"]).exists() for one in asked)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder once the ceilings are measured, which takes longest and is one command of the course."""
    folder = tmp_path_factory.mktemp("calibrated")
    for dtype in ("auto", "float32"):
        write_run(ceilings_path(folder, choose("cpu", dtype)), to_json(MACHINE))
    return folder


@pytest.mark.parametrize(("page", "command"), EVERY, ids=[f"{page}-{i}" for i, (page, _) in enumerate(EVERY)])
def test_a_command_of_the_course_runs(page: str, command: str, calibrated: Path, tmp_path: Path) -> None:
    program, *arguments = shlex.split(command)
    assert program == "ridgeline", f"{page}: {command}"
    (tmp_path / "records").symlink_to(ROOT / "records")
    kept = tmp_path / "cache" if "calibrate" in arguments else calibrated
    done = subprocess.run(
        [sys.executable, "-m", "ridgeline", *arguments],
        cwd=tmp_path,
        env=os.environ | {"RIDGELINE_CACHE_DIR": str(kept), "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMANDS_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip(), "a command of the course says something"


def test_continuous_batches_need_the_steps_that_can_be_reckoned(place: Place) -> None:
    prompts, new = [4] * 4, [2, 6, 2, 6]
    static = serving.run(place, {"batching": "static", "max_batch_size": 2}, 2, prompts, new)
    continuous = serving.run(place, {"batching": "continuous"}, 2, prompts, new)
    assert static.steps == 6 + 6
    assert static.tokens == continuous.tokens == sum(new)
    # Seats of two: the first short one makes room for the third, which leaves with the second; then the fourth alone.
    assert continuous.steps < static.steps
    assert continuous.per_step > static.per_step


def test_a_cache_saves_the_positions_that_can_be_reckoned(place: Place) -> None:
    prompts, new = [5, 5], [4, 4]
    kept = serving.run(place, {"kv_cache": "paged"}, 2, prompts, new)
    again = serving.run(place, {"kv_cache": "none"}, 2, prompts, new)
    assert kept.positions - kept.padding == 2 * (5 + 3)
    assert again.positions - again.padding == 2 * (5 + 6 + 7 + 8)


def test_scores_dominate_the_bytes_of_a_long_prompt() -> None:
    operands = scores.bytes_of(2048, writes_scores=False)
    assert operands == 4 * 12 * 2048 * 64 * 4
    assert scores.bytes_of(2048, writes_scores=True) - operands == 6 * 12 * 2048 * 2048 * 4


def test_a_strip_has_a_digit_for_each_step_until_it_is_full() -> None:
    assert serving.strip([8, 4, 1]) == "841"
    assert serving.strip([8, 8, 2, 2, 1], width=3) == "821"


@pytest.mark.parametrize(
    ("guess", "answer", "said"),
    [(10.0, 10.0, "well reckoned"), (10.0, 16.0, "too low"), (50.0, 10.0, "5.0 times too high")],
)
def test_a_guess_is_judged_by_its_ratio(guess: float, answer: float, said: str) -> None:
    assert said in judged(guess, answer, "x")


@pytest.mark.parametrize("guess", [0.0, -1.0, float("nan"), float("inf")])
def test_a_guess_that_is_none_is_refused(guess: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        judged(guess, 1.0, "x")


def test_a_chapter_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no chapter 9"):
        chapter(9)
