"""Chapter: a question with a number for an answer, and the experiment that finds it on this machine. Knows no terminal.

A reader guesses first and then measures: a prediction that was wrong is remembered longer than a table that was read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ridgeline.core.errors import ConfigError

if TYPE_CHECKING:
    from ridgeline.lab.machine import Progress
    from ridgeline.lab.rig import Workbench


@dataclass(frozen=True, slots=True)
class Figures:
    """A table. rows: cells under `columns`."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What an experiment found here. answer: to the chapter's question, in its unit. told: sentences about the figures,
    the first of them the answer in words. beside: another experiment of the same chapter."""

    answer: float
    figures: Figures
    told: tuple[str, ...]
    beside: Figures | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an experiment runs: a model on its device, and the folder of what is kept between runs."""

    bench: Workbench
    cache: Path
    progress: Progress


Experiment = Callable[[Place], Found]


@dataclass(frozen=True, slots=True)
class Chapter:
    """number: 1, 2, ... page: its file in docs/learn. unit: of the answer. hint: how to reckon it beforehand."""

    number: int
    page: str
    title: str
    question: str
    unit: str
    hint: str
    experiment: Experiment


_NEAR, _FAR = 1.25, 2.0


def judged(guess: float, answer: float, unit: str) -> str:
    """A sentence about a guess. Ratios count, not differences: half and double are equally wrong."""
    if not (guess > 0 and math.isfinite(guess)):
        raise ConfigError(f"--guess {guess:g}: the answer is a number above 0")
    told = f"You guessed {guess:.3g}{unit}, this machine says {answer:.3g}{unit}"
    if answer <= 0:
        return f"{told}."
    off = max(guess / answer, answer / guess)
    if off <= _NEAR:
        return f"{told}: well reckoned."
    way = "high" if guess > answer else "low"
    if off <= _FAR:
        return f"{told}: the right size, {off:.1f} times too {way}."
    return f"{told}: {off:.1f} times too {way}. What does the rule you used leave out?"
