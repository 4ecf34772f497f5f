"""Rungs: their order, what becomes a rung by itself, and names that are none."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.lab.ladder.rungs import (
    BASE,
    KNOWN,
    PROMISES,
    SIXTEEN_BITS,
    SPECULATION,
    Rung,
    base,
    changed,
    ladder,
    selected,
)
from ridgeline.menu import MENU


class Exact:
    """A choice that leaves the tokens as they are."""


class Lossy:
    exact = False


@pytest.fixture
def menu(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """A copy of MENU that a test may add rows to."""
    copy = {option: dict(choices) for option, choices in MENU.items()}
    monkeypatch.setattr("ridgeline.lab.ladder.rungs.MENU", copy)
    monkeypatch.setattr("ridgeline.menu.MENU", copy)
    return copy


def names(rungs: list[Rung]) -> list[str]:
    return [rung.name for rung in rungs]


def test_every_choice_of_the_menu_is_the_bottom_or_a_rung() -> None:
    config = base(Config())
    steps = [rung for rung in ladder() if rung.skipped is None]
    reached: dict[str, set[Any]] = {option: set() for option in MENU}
    words = {True: "on", False: "off"}
    for rung in [None, *steps]:
        config = config if rung is None else changed(config, rung.change)
        for option in MENU:
            value = next(
                getattr(section, option)
                for section in (config.model, config.batching, config.limits, config.server)
                if hasattr(section, option)
            )
            reached[option].add(words.get(value, value))
    offered = {(option, choice) for option, choices in MENU.items() for choice in choices}
    assert {(option, choice) for option, choices in reached.items() for choice in choices} == offered - PROMISES


def test_a_new_choice_becomes_a_rung_before_the_lossy_ones(menu: dict[str, dict[str, str]]) -> None:
    menu["packing"]["tiled"] = f"{__name__}:Exact"
    order = names(ladder())
    assert "packing-tiled" in order
    assert order.index("packing-tiled") < order.index(SIXTEEN_BITS)
    made = next(rung for rung in ladder() if rung.name == "packing-tiled")
    assert (made.change, made.lossy, made.skipped) == ({"packing": "tiled"}, False, None)


def test_a_new_lossy_choice_comes_after_the_exact_ones_and_before_speculation(menu: dict[str, dict[str, str]]) -> None:
    menu["rounding"] = {"none": f"{__name__}:Exact", "hard": f"{__name__}:Lossy"}
    order = names(ladder())
    assert order.index(SIXTEEN_BITS) < order.index("rounding-hard") < order.index(SPECULATION)
    assert next(rung for rung in ladder() if rung.name == "rounding-hard").lossy


def test_a_family_gives_its_place_to_its_choices(menu: dict[str, dict[str, str]]) -> None:
    menu["speculation"] = {"off": f"{__name__}:Exact", "lookup": f"{__name__}:Exact", "draft": f"{__name__}:Exact"}
    order = names(ladder())
    assert SPECULATION not in order
    assert order[-2:] == ["speculation-lookup", "speculation-draft"]


def test_a_choice_that_cannot_be_loaded_says_why(menu: dict[str, dict[str, str]]) -> None:
    menu["packing"]["tiled"] = "ridgeline.no_such_room:Tiled"
    made = next(rung for rung in ladder() if rung.name == "packing-tiled")
    assert made.skipped is not None
    assert "no_such_room" in made.skipped


def test_chosen_names_come_in_the_ladders_order_and_unknown_ones_are_refused() -> None:
    rungs = list(KNOWN)
    assert selected(rungs, ["continuous", "kv-cache"]) == ["kv-cache", "continuous"]
    assert selected(rungs, []) == names(rungs)
    with pytest.raises(ConfigError, match="there is no rung 'kv-cahce'; did you mean 'kv-cache'"):
        selected(rungs, ["kv-cahce"])
    with pytest.raises(ConfigError, match="there is no rung 'zzz'; there are transformers, no-cache"):
        selected(rungs, ["zzz"])


def test_the_base_is_the_naive_engine_and_keeps_a_format_that_was_asked_for() -> None:
    bottom = base(Config())
    assert bottom.model.dtype == "float32"
    assert (bottom.batching.batching, bottom.batching.kv_cache) == (BASE["batching"], "none")
    assert base(Config.of(dtype="bfloat16")).model.dtype == "bfloat16"
    with pytest.raises(ConfigError, match="no option --warp-drive"):
        changed(bottom, {"warp_drive": True})
