"""`ridgeline cache`: the folder, its contents, and a deletion that asks and never follows a link."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ridgeline.cli import app
from ridgeline.core.errors import ConfigError

runner = CliRunner()


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    (folder / "kernels").mkdir(parents=True)
    (folder / "kernels" / "a.so").write_bytes(b"x" * 2_000_000)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (folder / "link").symlink_to(tmp_path / "mine")
    monkeypatch.setenv("RIDGELINE_CACHE_DIR", str(folder))
    return folder


def test_it_shows_what_is_there(filled: Path) -> None:
    words = runner.invoke(app, ["cache"]).output.split()
    assert str(filled) in words
    assert words[words.index("kernels") - 2] == "2.0"


def test_clearing_asks_and_follows_no_link(filled: Path) -> None:
    runner.invoke(app, ["cache", "--clear"], input="n\n")
    assert (filled / "kernels" / "a.so").exists()
    assert runner.invoke(app, ["cache", "--clear"], input="y\n").exit_code == 0
    assert [entry.name for entry in filled.iterdir()] == ["link"], "somebody else's"
    assert (filled.parent / "mine" / "thesis.txt").exists()


def test_what_ridgeline_did_not_make_stays(filled: Path) -> None:
    (filled / "kernels" / "a.so").unlink()
    (filled / "kernels").rmdir()
    (filled / "kernels").symlink_to(filled.parent / "mine")
    (filled / "Documents").mkdir()
    said = runner.invoke(app, ["cache", "--clear", "--yes"]).output
    assert "what is not Ridgeline's stays" in said
    assert sorted(entry.name for entry in filled.iterdir()) == ["Documents", "link"]
    assert (filled.parent / "mine" / "thesis.txt").exists()


def test_yes_alone_means_nothing() -> None:
    assert isinstance(runner.invoke(app, ["cache", "--yes"]).exception, ConfigError)


def test_without_a_variable_it_is_the_platforms_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RIDGELINE_CACHE_DIR", raising=False)
    assert "ridgeline" in runner.invoke(app, ["cache"]).output.splitlines()[0]
