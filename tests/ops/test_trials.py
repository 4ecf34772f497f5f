"""Trials are made once in a process, and once on a machine where they take long."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ridgeline.ops import trials
from ridgeline.ops.trials import once, surroundings


class Trial:
    def __init__(self, *works: str) -> None:
        self.works, self.tried = works, list[str]()

    def __call__(self, kernels: str) -> None:
        self.tried.append(kernels)
        if kernels not in self.works:
            raise RuntimeError(kernels)


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    """As in a new process."""
    trials._passed.cache_clear()


def test_what_works_is_tried_once_and_what_fails_again() -> None:
    trial = Trial("plain")
    for _ in range(2):
        tried = once(trial, ("a card",), None)
        with pytest.raises(RuntimeError):
            tried("dependent")
        tried("plain")
    assert trial.tried == ["dependent", "plain", "dependent"]
    once(trial, ("another card",), None)("plain")
    assert trial.tried[3:] == ["plain"]


@pytest.mark.parametrize("long_s", [0.0, 60.0])
def test_long_trials_are_remembered_between_processes(
    long_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "LONG_S", long_s)
    trial = Trial("plain")
    once(trial, ("a card",), tmp_path)("plain")
    trials._passed.cache_clear()
    once(trial, ("a card",), tmp_path)("plain")
    assert trial.tried == (["plain"] if long_s == 0 else ["plain", "plain"])


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "LONG_S", 0.0)
    (tmp_path / "trials").write_text("in the way")
    trial = Trial("plain")
    once(trial, ("a card",), tmp_path)("plain")
    assert trial.tried == ["plain"]


def test_another_source_is_another_trial(tmp_path: Path) -> None:
    source = tmp_path / "kernels.py"
    source.write_text("one")
    before = surroundings(torch.device("cpu"), str(source), None)
    source.write_text("two")
    assert surroundings(torch.device("cpu"), str(source)) != before
    assert torch.__version__ in before
