"""Judging: what the lossy rungs cost in quality, on a text. Builds engines; measures no time."""

from __future__ import annotations

import dataclasses
from typing import Any

from ridgeline.build import EngineOrder, load, make_engine
from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.engine.engine import Engine
from ridgeline.hub import resolve
from ridgeline.lab.ladder.rungs import changed
from ridgeline.lab.ladder.seams import Progress, Seams

DEMO = "demo"
WINDOW, TOKENS, QUICK_TOKENS = 256, 8192, 1024


def judge(
    order: EngineOrder, exact: Config, lossy: Config, seams: Seams, tokens: int, progress: Progress
) -> dict[str, Any]:
    """A lossy configuration beside the exact one on the text that comes with Ridgeline, as the run file has it.

    On the bundled model where the weights are random, which predict no text. {"reason": ...} where it cannot be judged.
    """
    try:
        shown = order if order.weights is not None else _demo(order)
        ids = seams.text_ids(shown, tokens)
        window = min(WINDOW, shown.spec().max_positions - 1)
        reference, candidate = (_engine(shown, config, window + 1) for config in (exact, lossy))
        found = seams.judge(reference, candidate, ids, window, progress)
    except ConfigError as error:
        return {"reason": str(error)}
    return {
        "model": shown.name,
        "perplexity": found.perplexity,
        "reference_perplexity": found.reference_perplexity,
        "agreement": found.agreement,
        "positions": found.positions,
    }


def _demo(order: EngineOrder) -> EngineOrder:
    model = dataclasses.replace(order.config.model, model=DEMO, random_weights=None)
    found = resolve(DEMO)
    return EngineOrder(dataclasses.replace(order.config, model=model), found.name, found.weights, cache=order.cache)


def _engine(order: EngineOrder, config: Config, longest: int) -> Engine:
    of_model = {"model": order.config.model.model, "random_weights": order.config.model.random_weights}
    own = dataclasses.replace(order, config=changed(config, of_model | {"max_model_len": longest}))
    return make_engine(own, _quiet, load(own, _quiet))[0]


def _quiet(phase: str, done: int, total: int) -> None:
    """Quality has its own progress."""
