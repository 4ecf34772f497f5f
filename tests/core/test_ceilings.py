"""Ceilings: through JSON and back, complaints about anything else, the level that holds so much, the ridge point."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ridgeline.core.ceilings import Level, from_json, to_json
from ridgeline.core.errors import ConfigError
from tests.core.made_up import ceilings, rate


def test_through_a_file_and_back() -> None:
    for known in (ceilings(), ceilings(graph_launch_ns=None, to_device=None, datasheet=None, notes=(), provenance={})):
        assert from_json("a file", json.loads(json.dumps(to_json(known)))) == known


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 2),
        (("device",), ...),
        (("threads",), "many"),
        (("threads",), float("inf")),
        (("levels",), []),
        (("levels",), "L1"),
        (("levels", 2, "capacity_bytes"), 5),
        (("levels", 0, "capacity_bytes"), -1),
        (("levels", 0, "capacity_bytes"), 1.5),
        (("levels", 0, "read"), None),
        (("levels", 0, "read", "low"), 2e12),
        (("levels", 0, "read", "high"), float("inf")),
        (("matrix",), ["float32"]),
        (("matrix", "float32", "median"), "fast"),
        (("launch_ns",), None),
        (("launch_ns", "low"), 0.0),
        (("graph_launch_ns", "median"), float("nan")),
        (("to_device",), 3.0),
        (("datasheet",), "a leaflet"),
        (("datasheet", "flops_per_s"), 7),
        (("notes",), "one"),
        (("provenance",), "here"),
        (("provenance",), ...),
    ],
)
def test_a_broken_document_is_a_sentence(path: tuple[Any, ...], value: Any) -> None:
    document: Any = json.loads(json.dumps(to_json(ceilings())))
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    with pytest.raises(ConfigError, match=r"^a file: .*`ridgeline calibrate` again"):
        from_json("a file", document)


@pytest.mark.parametrize("document", [None, [], "x", 3, {}])
def test_another_document_is_a_sentence(document: Any) -> None:
    with pytest.raises(ConfigError, match="a file: not a file of ceilings"):
        from_json("a file", copy.copy(document))


def test_the_nearest_level_that_holds_so_much() -> None:
    known = ceilings()
    names = [known.level_for(size).name for size in (1, 100_000, 100_001, 30_000_000, 30_000_001)]
    assert names == ["L1", "L1", "L3", "L3", "memory"]
    assert known.last_cache is known.levels[1]
    bare = ceilings(levels=(Level("memory", None, rate(1e10)),))
    assert bare.level_for(1) is bare.memory
    assert bare.last_cache is None


def test_the_ridge_point_is_where_reading_and_arithmetic_take_as_long() -> None:
    known = ceilings()
    assert known.ridge("bfloat16") == pytest.approx(100.0)
    assert known.ridge("float32") == pytest.approx(10.0)
    with pytest.raises(ConfigError, match=r"no matrix rate for int8 .*float32, bfloat16"):
        known.ridge("int8")
